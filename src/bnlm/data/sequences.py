"""Words as padded sequences: every position of a word is learned at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bnlm.data.vocabulary import END, Vocabulary

IGNORED = -1  # the target at a padding


def sequences(words: Sequence[str], vocabulary: Vocabulary, length: int) -> tuple[Tensor, Tensor]:
    """Return each word as ids, and the character after each of them.

    The inputs of "ab" are 0, a, b and then 0 up to `length`, its targets a, b, 0 (the end mark) and then `IGNORED`.
    Source: makemore.py, `CharDataset`.

    Args:
        length: Of all rows; at least the longest word's and one.
    Returns:
        Inputs and targets `(N, length)`, both int64.
    Raises:
        ValueError: If a character is not in the vocabulary, or a word is too long.
    """
    inputs = torch.full((len(words), length), END, dtype=torch.int64)
    targets = torch.full((len(words), length), IGNORED, dtype=torch.int64)
    ids = [vocabulary.encode(word) for word in words]
    if any(len(word) >= length for word in ids):
        longest = max(words, key=len)
        raise ValueError(f"{longest!r}: has {len(longest)} characters; expected at most {length - 1}.")
    lengths = torch.tensor([len(word) for word in ids], dtype=torch.int64).unsqueeze(1)
    flat = torch.tensor([i for word in ids for i in word], dtype=torch.int64)
    place = torch.arange(length).unsqueeze(0)
    inputs[(place >= 1) & (place <= lengths)] = flat
    targets[place < lengths] = flat
    targets[place == lengths] = END
    return inputs, targets
