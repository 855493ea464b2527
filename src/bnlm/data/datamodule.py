"""The words of a run as Lightning wants them."""

import hashlib
import string
from collections.abc import Sequence
from importlib.resources import as_file, files
from os import PathLike

from torch import Tensor

from bnlm.data.character_datamodule import CharacterDataModule, check_split
from bnlm.data.checks import check_whole_number
from bnlm.data.makemore import makemore_path
from bnlm.data.sequences import sequences
from bnlm.data.vocabulary import Vocabulary
from bnlm.data.windows import count_windows, windows
from bnlm.data.words import SPLITS, read_words, split_words

MAX_SEQUENCE = 1000  # characters of the longest word that sequences are made for: every word is padded to it


class WordsDataModule(CharacterDataModule):
    """A word list, split and cut into windows that lie on the device as one tensor a split.

    Everything is checked, and the words read, when it is built: `vocabulary`, `vocab_size` and `words` (the words of
    each split) are there before a model is, and a mistake shows before any training.

    For sequence models an example is a word instead: an id 0 and its characters, padded with 0 to the longest word of
    the list, and as targets its characters and the end mark. `context` is then the length of these rows.

    Args:
        path: Text file with one word a line. None takes the shipped names, or with `url` the published list.
        context: Characters a prediction sees; of sequences, all before it.
        batch_size: Examples an optimizer step, on each rank.
        splits: Shares of the training, validation and test words; they sum to 1.
        shuffle: The generator that orders the words before the split: `python`, as in the lecture, or `torch`, as in
            makemore.py.
        split_seed: Of this shuffle; the lecture's is 42, that of makemore.py 3407.
        url: Where the list is published; needs `sha256`. With it, `path` is a copy of that list.
        sha256: Of the list, 64 hexadecimal digits.
        eval_batch_size: Examples a batch in evaluation; of no influence on the results.
        steps_per_batch: Optimizer steps a training batch of Lightning; of no influence on the results.
        seed: Of the minibatches.
        sequence: Whether the model learns every position of a word at once.
    Raises:
        ValueError: If a value is not valid, or the list cannot be had; the message names the key.
    """

    def __init__(
        self,
        path: str | None = None,
        context: int = 3,
        batch_size: int = 32,
        splits: Sequence[float] = (0.8, 0.1, 0.1),
        shuffle: str = "python",
        split_seed: int = 42,
        url: str | None = None,
        sha256: str | None = None,
        eval_batch_size: int = 4096,
        steps_per_batch: int = 50,
        seed: int = 0,
        sequence: bool = False,
    ) -> None:
        super().__init__(context, batch_size, splits, eval_batch_size, steps_per_batch, seed, sequence)
        self.split_seed = check_whole_number("data.split_seed", split_seed, 0)
        words = _read_list(path, url, sha256)
        self.words = dict(zip(SPLITS, split_words(words, self.splits, self.split_seed, shuffle), strict=True))
        self.vocabulary = Vocabulary.from_words(words)
        if sequence:
            longest = max(words, key=len)
            if len(longest) > MAX_SEQUENCE:
                raise ValueError(
                    f"data.path={path!r}: the word {longest[:20]!r}... has {len(longest):,} characters, and a sequence "
                    f"model pads all to it; expected at most {MAX_SEQUENCE:,}. Take data=text, or a model over windows."
                )
            self.context = len(longest) + 1  # the id before the first character, and all characters

    def n_characters(self, split: str) -> int:
        """Return how many characters of a split (train, val or test) are predicted, end marks included."""
        check_split(split)
        return count_windows(self.words[split])

    def make_examples(self, split: str) -> tuple[Tensor, Tensor]:
        """Return the inputs `(N, context)` and targets `(N,)`, or `(N, context)` of sequences, both int64."""
        cut = sequences if self.sequence else windows
        return cut(self.words[split], self.vocabulary, self.context)

    def train_sha256(self) -> str:
        """Return a checksum of the training words."""
        return hashlib.sha256("\n".join(self.words["train"]).encode()).hexdigest()


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
