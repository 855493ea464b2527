"""What all data of a run have in common, as Lightning wants them: splits, minibatches, a state."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from bnlm.data.checks import check_whole_number
from bnlm.data.minibatches import EvaluationBatches, Minibatches
from bnlm.data.vocabulary import END, Vocabulary
from bnlm.data.words import SPLITS, check_splits

STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}

# What a checkpoint says about its data, and the keys that decide it. A model fits only data with the first two; a
# training run goes on as it began only if the others agree too.
MODEL_KEYS = {"context": "data.context", "characters": "data.path"}
SAMPLING_KEYS = {
    "seed": "seed",
    "batch_size": "data.batch_size",
    "train_examples": "data.path, data.splits, data.shuffle or data.split_seed",
    "train_sha256": "data.path, data.splits, data.shuffle or data.split_seed",
}


class CharacterDataModule(LightningDataModule):
    """Characters in three splits, as examples that lie on the device as two tensors a split.

    For a model over windows an example is a context `(context,)` and the character after it; for a sequence model
    (`sequence=True`) a padded row of ids `(context,)` and the character after each of them, `IGNORED` at paddings.

    A subclass reads its source when it is built, sets `vocabulary`, and says what the examples of a split are.

    Args:
        context: Characters a prediction sees.
        batch_size: Examples an optimizer step, on each rank.
        splits: Shares of the training, validation and test part; they sum to 1.
        eval_batch_size: Examples a batch in evaluation; of no influence on the results.
        steps_per_batch: Optimizer steps a training batch of Lightning; of no influence on the results.
        seed: Of the minibatches.
        sequence: Whether the model learns every position of an example.
    Raises:
        ValueError: If a value is not valid; the message names the key.
    """

    vocabulary: Vocabulary
    has_words: ClassVar[bool] = True
    """Whether what is learned are words, each with a beginning and an end."""

    def __init__(
        self,
        context: int,
        batch_size: int,
        splits: Sequence[float],
        eval_batch_size: int,
        steps_per_batch: int,
        seed: int,
        sequence: bool,
    ) -> None:
        super().__init__()
        self.context = check_whole_number("data.context", context, 1)
        self.batch_size = check_whole_number("data.batch_size", batch_size, 1)
        self.splits = check_splits(splits)
        self.eval_batch_size = check_whole_number("data.eval_batch_size", eval_batch_size, 1)
        self.steps_per_batch = check_whole_number("steps_per_batch", steps_per_batch, 1)
        #: Of networks that are trained at once, each on minibatches of its own: a tuple, to be set after building.
        self.seed: int | tuple[int, ...] = check_whole_number("seed", seed, 0)
        self.sequence = sequence
        self._examples: dict[str, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def start_id(vocabulary: Vocabulary) -> int:
        """Return the id that stands before the first character of a new sample."""
        return END

    @property
    def vocab_size(self) -> int:
        """Number of ids, the end mark's included."""
        return len(self.vocabulary)

    def n_characters(self, split: str) -> int:
        """Return how many characters of a split (train, val or test) are predicted, end marks included."""
        raise NotImplementedError

    def make_examples(self, split: str) -> tuple[Tensor, Tensor]:
        """Return inputs `(N, context)` and targets `(N,)` or `(N, context)` of a split, of any whole-number type."""
        raise NotImplementedError

    def train_sha256(self) -> str:
        """Return a checksum of the training split."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Make the examples that the stage needs, once, on the trainer's device."""
        for split in STAGE_SPLITS.get(stage, ()):
            self.examples(split)

    def examples(self, split: str) -> tuple[Tensor, Tensor]:
        """Return inputs `(N, context)` and targets `(N,)` (sequences: `(N, context)`) of a split, on its device.

        That is the trainer's, else the CPU. Those of a text are bytes, or other small whole numbers.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(split)
        if split not in self._examples:
            self._examples[split] = self.make_examples(split)
        inputs, targets = self._examples[split]
        self._examples[split] = inputs.to(self.device), targets.to(self.device)  # moves once: then they are there
        return self._examples[split]

    @property
    def device(self) -> torch.device:
        """The trainer's device; without one the CPU."""
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def some_examples(self, n: int) -> tuple[Tensor, Tensor]:
        """Return `n` training examples, int64, spread evenly: neighbours are much alike."""
        inputs, targets = self.examples("train")
        spread = torch.linspace(0, len(targets) - 1, n, dtype=torch.float64).long().to(targets.device)
        return inputs[spread].long(), targets[spread].long()

    def train_dataloader(self) -> Minibatches:
        """Return the training chunks; they follow the trainer's count of optimizer steps.

        Raises:
            RuntimeError: If there is no trainer.
        """
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("train_dataloader needs a trainer; in a loop of your own use bnlm.data.Minibatches.")
        return Minibatches(
            *self.examples("train"),
            batch_size=self.batch_size,
            steps_per_batch=self.steps_per_batch,
            seed=self.seed,
            current_step=lambda: trainer.global_step,
            max_steps=trainer.max_steps,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )

    def val_dataloader(self) -> EvaluationBatches:
        """Return the validation examples in order."""
        return self.evaluation_dataloader("val")

    def test_dataloader(self) -> EvaluationBatches:
        """Return the test examples in order."""
        return self.evaluation_dataloader("test")

    def evaluation_dataloader(self, split: str) -> EvaluationBatches:
        """Return the examples of `split` (train, val or test) in order, this rank's share of them."""
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        return EvaluationBatches(*self.evaluation_examples(split), self.eval_batch_size, rank, world_size)

    def evaluation_examples(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the examples by which a model is judged on a split: all of them, unless the subclass has too many."""
        return self.examples(split)

    def state_dict(self) -> dict[str, Any]:
        """Return what decides which minibatch each optimizer step sees; the step itself is Lightning's to keep."""
        return {
            "context": self.context,
            "characters": self.vocabulary.characters,
            "seed": list(self.seed) if isinstance(self.seed, tuple) else self.seed,
            "batch_size": self.batch_size,
            "train_examples": self.n_characters("train"),
            "train_sha256": self.train_sha256(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a resumed run goes on with the same data; there is nothing to restore.

        Raises:
            ValueError: If the context or the characters differ from the checkpoint's or, unless the trainer only
                evaluates, if the minibatches would be others.
        """
        evaluates = self.trainer is not None and self.trainer.state.fn in (TrainerFn.VALIDATING, TrainerFn.TESTING)
        ours = self.state_dict()
        for name, key in (MODEL_KEYS if evaluates else MODEL_KEYS | SAMPLING_KEYS).items():
            if name not in state_dict:
                raise ValueError(f"checkpoint: its data state lacks {name!r}, so it was not written by {type(self)}.")
            if state_dict[name] != ours[name]:
                raise ValueError(
                    f"{key}: the checkpoint has {name}={state_dict[name]!r}, this run has {ours[name]!r}; "
                    "go on with the checkpoint's data and sampling, or start a new run without the checkpoint."
                )


def check_split(split: str) -> None:
    """Raise a ValueError unless `split` is train, val or test."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: expected one of {', '.join(SPLITS)}.")
