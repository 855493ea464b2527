"""Shows in TensorBoard how the words that a model spells get better."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from bnlm.data import CharacterDataModule
from bnlm.models import first_of
from bnlm.sample import sample

WORDS = 10


class SampleLog(Callback):
    """Writes some new words to TensorBoard as the text `samples`, after each validation and at the end of training.

    Nothing is written for data that are not ours, or where the model's outputs are not finite.

    Args:
        seed: Of the draws, the same each time: what changes is the model.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._last_step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not (trainer.is_global_zero and loggers and isinstance(data, CharacterDataModule)):
            return
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        model, vocabulary = pl_module.model, data.vocabulary
        assert isinstance(model, nn.Module)
        try:
            words = sample(
                first_of(model), vocabulary, data.context, WORDS, seed=self.seed, start=data.start_id(vocabulary)
            )
        except ValueError:  # outputs that are not finite: the losses say so
            return
        text = "\n".join(f"    {line}" for word in words for line in word.split("\n"))  # indented: a block, as it is
        for logger in loggers:
            logger.experiment.add_text("samples", text, trainer.global_step)
