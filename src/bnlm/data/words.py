"""Word lists: read one from a file, split it into training, validation and test words."""

import math
import random
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch

SPLITS = ("train", "val", "test")
#: Whose generator shuffles the words before they are split.
SHUFFLES = ("python", "torch")


def read_bytes(path: str | Path) -> bytes:
    """Return the content of the file that `data.path` names; `~` is the home folder, a relative path starts here.

    Raises:
        ValueError: If there is no such file, it is a folder, or it cannot be read.
    """
    key = f"data.path={str(path)!r}"
    try:
        file = Path(path).expanduser()
        if file.is_dir():
            raise ValueError(f"{key}: is a folder; expected a text file with one word a line.")
        return file.read_bytes()
    except FileNotFoundError:
        where = "" if file.is_absolute() else f" (a relative path starts at the current folder, {Path.cwd()})"
        raise ValueError(f"{key}: no such file{where}; expected a text file with one word a line.") from None
    except OSError as error:
        raise ValueError(f"{key}: cannot be read ({error.strerror or error}).") from error
    except RuntimeError as error:  # expanduser, for the home of a user who does not exist
        raise ValueError(f"{key}: {error}") from error


def read_words(path: str | Path) -> list[str]:
    r"""Return the words of a UTF-8 text file, one a line, in file order, duplicates kept.

    A byte-order mark, `\r\n` line ends, blank lines and spaces around a word are taken off. Letters are composed
    (Unicode NFC), so that an accented letter is one character however the file spells it.

    Raises:
        ValueError: If the file cannot be read, is empty, holds only blank lines, or is not UTF-8.
    """
    key = f"data.path={str(path)!r}"
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _unify_line_ends(error.object[: error.start].decode("utf-8")).count("\n") + 1
        byte = error.object[error.start]
        raise ValueError(
            f"{key}: line {line} is not UTF-8 (byte 0x{byte:02x}: {error.reason}); save the file as UTF-8."
        ) from error
    if not text:
        raise ValueError(f"{key}: the file is empty; expected one word a line.")
    # not str.splitlines: it also splits at form feeds and other separators that may stand inside a word
    lines = _unify_line_ends(composed(text)).split("\n")
    words = [word for line in lines if (word := line.strip())]
    if not words:
        raise ValueError(f"{key}: the file has only blank lines; expected one word a line.")
    return words


def composed(text: str) -> str:
    """Return `text` with every accented letter as one character (Unicode NFC), as all that is read here has them."""
    return unicodedata.normalize("NFC", text)


def split_words(
    words: Sequence[str], splits: Sequence[float], seed: int, shuffle: str = "python"
) -> tuple[list[str], list[str], list[str]]:
    """Return the training, validation and test words: shuffled by `seed`, then cut by the shares in `splits`.

    Source: Karpathy, makemore part 3: `random.seed(42); random.shuffle(words)`, cuts at `int(0.8*n)` and `int(0.9*n)`;
    makemore.py: `torch.randperm(n)` after `torch.manual_seed(3407)`, of which the last 1,000 are the test words.

    Args:
        words: The list; it is left as it is.
        splits: Shares of the three parts, fractions that sum to 1.
        seed: Of the shuffle; 42 by `python` gives the lecture's split, 3407 by `torch` the order of makemore.py.
        shuffle: Whose generator, one of `SHUFFLES`.
    Raises:
        ValueError: If `splits` is not three such shares, a part would be empty, or the generator is unknown.
    """
    if shuffle not in SHUFFLES:
        raise ValueError(f"data.shuffle={shuffle!r}: expected {' or '.join(SHUFFLES)}.")
    shares = check_splits(splits)
    n = len(words)
    # rounded, because 0.7 + 0.1 is 0.7999999999999999 and would cut one word early
    ends = int(shares[0] * n), int(round(shares[0] + shares[1], 12) * n)
    for name, size in zip(SPLITS, (ends[0], ends[1] - ends[0], n - ends[1]), strict=True):
        if size == 0:
            raise ValueError(
                f"data.splits={list(shares)}: of {n} words none is left for the {name} split; "
                f"{math.ceil(1 / min(shares))} words are enough for these shares."
            )
    if shuffle == "torch":
        generator = torch.Generator().manual_seed(seed % 2**63)  # which takes no larger one
        shuffled = [words[i] for i in torch.randperm(n, generator=generator).tolist()]
    else:
        shuffled = list(words)
        random.Random(seed).shuffle(shuffled)
    return shuffled[: ends[0]], shuffled[ends[0] : ends[1]], shuffled[ends[1] :]


def check_splits(splits: Sequence[float]) -> tuple[float, float, float]:
    """Return `splits` as a tuple if they are three positive numbers that sum to 1 (to 1e-6).

    Raises:
        ValueError: Otherwise.
    """
    expected = "expected three numbers above 0 that sum to 1 (train, val, test), such as [0.8, 0.1, 0.1]."
    if isinstance(splits, str) or not isinstance(splits, Sequence):
        raise ValueError(f"data.splits={splits!r}: {expected}")
    shares = tuple(splits)
    is_number = [isinstance(share, int | float) and not isinstance(share, bool) for share in shares]
    if len(shares) != 3 or not all(is_number):
        raise ValueError(f"data.splits={list(shares)}: {expected}")
    # written so that nan, which compares false with everything, is refused too
    if not (min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6):
        raise ValueError(f"data.splits={list(shares)} (sum {sum(shares):g}): {expected}")
    return shares


def _unify_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
