"""Running text as Lightning wants it: windows over the whole file, cut when they are needed."""

import hashlib
import math
from collections.abc import Sequence
from os import PathLike
from typing import ClassVar

from torch import Tensor

from bnlm.data.character_datamodule import CharacterDataModule, check_split
from bnlm.data.text import read_text
from bnlm.data.vocabulary import END, Vocabulary
from bnlm.data.words import SPLITS

MAX_EVALUATED = 1_000_000  # predictions by which a split is judged


class TextDataModule(CharacterDataModule):
    """A text file in three consecutive parts, as windows that overlap.

    Every place of the text, line ends included, is predicted from the `context` characters before it (for sequence
    models: each of `context` neighbouring places from those before it in the window). The text lies on the device once,
    one to four bytes a character; windows are views of it, and only those that are drawn are ever copied.

    A split is judged by at most `MAX_EVALUATED` predictions, spread evenly over it; of sequence models, in windows that
    do not overlap.

    Args:
        path: The file, in UTF-8.
        context: Characters a prediction sees; of sequences, the length of a window.
        batch_size: Windows an optimizer step, on each rank.
        splits: Shares of the training, validation and test part, in the order of the file; they sum to 1.
        eval_batch_size: Windows a batch in evaluation; of no influence on the results.
        steps_per_batch: Optimizer steps a training batch of Lightning; of no influence on the results.
        seed: Of the minibatches.
        sequence: Whether the model learns every position of a window at once.
    Raises:
        ValueError: If a value is not valid, or the file cannot be read or is too short; the message names the key.
    """

    has_words: ClassVar[bool] = False

    def __init__(
        self,
        path: str,
        context: int = 16,
        batch_size: int = 32,
        splits: Sequence[float] = (0.8, 0.1, 0.1),
        eval_batch_size: int = 4096,
        steps_per_batch: int = 50,
        seed: int = 0,
        sequence: bool = False,
    ) -> None:
        super().__init__(context, batch_size, splits, eval_batch_size, steps_per_batch, seed, sequence)
        if not isinstance(path, str | PathLike) or not str(path):
            raise ValueError(f"data.path={path!r}: expected the path of a text file.")
        ids, self.vocabulary = read_text(path)
        n = len(ids)
        ends = int(self.splits[0] * n), int(round(self.splits[0] + self.splits[1], 12) * n)
        self.ids = dict(zip(SPLITS, (ids[: ends[0]], ids[ends[0] : ends[1]], ids[ends[1] :]), strict=True))
        for split, part in self.ids.items():
            if len(part) <= self.context:
                raise ValueError(
                    f"data.path={str(path)!r}: of its {n:,} characters {len(part):,} are left for the {split} split; "
                    f"expected more than data.context={self.context}."
                )
        self._train_sha256: str | None = None

    @staticmethod
    def start_id(vocabulary: Vocabulary) -> int:
        """Return the id that stands before a new sample: the line end, where the text has any."""
        return vocabulary.encode("\n")[0] if "\n" in vocabulary.characters else END

    def n_characters(self, split: str) -> int:
        """Return how many characters of a split (train, val or test) can be predicted from a whole context."""
        check_split(split)
        return len(self.ids[split]) - self.context

    def make_examples(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the inputs `(N, context)` and targets `(N,)`, or `(N, context)` of sequences, as views of the text."""
        ids = self.ids[split].to(self.device)  # before it is cut: a view that moves becomes a copy of all windows
        inputs = ids[:-1].unfold(0, self.context, 1)
        return inputs, ids[1:].unfold(0, self.context, 1) if self.sequence else ids[self.context :]

    def evaluation_examples(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the windows by which a model is judged; see `MAX_EVALUATED`."""
        inputs, targets = self.examples(split)
        step = (self.context if self.sequence else 1) * math.ceil(len(targets) / MAX_EVALUATED)
        return inputs[::step], targets[::step]

    def train_sha256(self) -> str:
        """Return a checksum of the training part."""
        if self._train_sha256 is None:
            self._train_sha256 = hashlib.sha256(self.ids["train"].numpy().data).hexdigest()
        return self._train_sha256
