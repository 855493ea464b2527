"""The words of a run as Lightning wants them."""

import hashlib
import string
from collections.abc import Sequence
from importlib.resources import as_file, files
from os import PathLike
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from bnlm.data.checks import check_whole_number
from bnlm.data.makemore import makemore_path
from bnlm.data.minibatches import EvaluationBatches, Minibatches
from bnlm.data.vocabulary import Vocabulary
from bnlm.data.windows import count_windows, windows
from bnlm.data.words import SPLITS, check_splits, read_words, split_words

STAGE_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}

# What a checkpoint says about its data, and the keys that decide it. A model fits only data with the first two; a
# training run goes on as it began only if the others agree too.
MODEL_KEYS = {"context": "data.context", "characters": "data.path"}
SAMPLING_KEYS = {
    "seed": "seed",
    "batch_size": "data.batch_size",
    "train_examples": "data.path, data.splits or data.split_seed",
    "train_sha256": "data.path, data.splits or data.split_seed",
}


class WordsDataModule(LightningDataModule):
    """A word list, split and cut into windows that lie on the device as one tensor a split.

    Everything is checked, and the words read, when it is built: `vocabulary`, `vocab_size` and `words` (the words of
    each split) are there before a model is, and a mistake shows before any training.

    Args:
        path: Text file with one word a line. None takes the shipped names, or with `url` the published list.
        context: Characters a prediction sees.
        batch_size: Examples an optimizer step, on each rank.
        splits: Shares of the training, validation and test words; they sum to 1.
        split_seed: Of the shuffle before the split; 42 is the lecture's.
        url: Where the list is published; needs `sha256`. With it, `path` is a copy of that list.
        sha256: Of the list, 64 hexadecimal digits.
        eval_batch_size: Examples a batch in evaluation; of no influence on the results.
        steps_per_batch: Optimizer steps a training batch of Lightning; of no influence on the results.
        seed: Of the minibatches.
    Raises:
        ValueError: If a value is not valid, or the list cannot be had; the message names the key.
    """

    def __init__(
        self,
        path: str | None = None,
        context: int = 3,
        batch_size: int = 32,
        splits: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 42,
        url: str | None = None,
        sha256: str | None = None,
        eval_batch_size: int = 4096,
        steps_per_batch: int = 50,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.context = check_whole_number("data.context", context, 1)
        self.batch_size = check_whole_number("data.batch_size", batch_size, 1)
        self.splits = check_splits(splits)
        self.split_seed = check_whole_number("data.split_seed", split_seed, 0)
        self.eval_batch_size = check_whole_number("data.eval_batch_size", eval_batch_size, 1)
        self.steps_per_batch = check_whole_number("steps_per_batch", steps_per_batch, 1)
        self.seed = check_whole_number("seed", seed, 0)
        words = _read_list(path, url, sha256)
        self.words = dict(zip(SPLITS, split_words(words, self.splits, self.split_seed), strict=True))
        self.vocabulary = Vocabulary.from_words(words)
        self.vocab_size = len(self.vocabulary)
        self._examples: dict[str, tuple[Tensor, Tensor]] = {}

    def setup(self, stage: str) -> None:
        """Make the windows that the stage needs, once, on the trainer's device."""
        for split in STAGE_SPLITS.get(stage, ()):
            self.examples(split)

    def examples(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the contexts `(N, context)` and targets `(N,)` of a split, on the trainer's device (else the CPU).

        Raises:
            ValueError: If there is no such split.
        """
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: expected one of {', '.join(SPLITS)}.")
        if split not in self._examples:
            self._examples[split] = windows(self.words[split], self.vocabulary, self.context)
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        contexts, targets = self._examples[split]
        self._examples[split] = contexts.to(device), targets.to(device)  # moves once: afterwards they are there
        return self._examples[split]

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
        return EvaluationBatches(*self.examples(split), self.eval_batch_size, rank, world_size)

    def state_dict(self) -> dict[str, Any]:
        """Return what decides which minibatch each optimizer step sees; the step itself is Lightning's to keep."""
        train = self.words["train"]
        return {
            "context": self.context,
            "characters": self.vocabulary.characters,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "train_examples": count_windows(train),
            "train_sha256": hashlib.sha256("\n".join(train).encode()).hexdigest(),
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


def _read_list(path: str | None, url: str | None, sha256: str | None) -> list[str]:
    if path is not None and (not isinstance(path, str | PathLike) or not str(path)):
        raise ValueError(f"data.path={path!r}: expected the path of a text file, or null for the list that belongs.")
    if url is None and sha256 is None:
        if path is not None:
            return read_words(path)
        with as_file(files("bnlm.data") / "names.txt") as shipped:
            return read_words(shipped)
    if not isinstance(url, str):
        raise ValueError(f"data.url={url!r}: expected the address of the list that data.sha256 belongs to.")
    if not isinstance(sha256, str) or len(sha256) != 64 or not set(sha256) <= set(string.hexdigits):
        raise ValueError(f"data.sha256={sha256!r}: expected the 64 hexadecimal digits of the list at data.url.")
    return read_words(makemore_path(path, url, sha256))
