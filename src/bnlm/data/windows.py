"""Words as windows: the characters seen, and the one that comes next."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from bnlm.data.checks import check_whole_number
from bnlm.data.vocabulary import END, Vocabulary


def count_windows(words: Sequence[str]) -> int:
    """Return how many windows `words` have: one for each character and one for each word's end mark."""
    return sum(len(word) + 1 for word in words)


def windows(words: Sequence[str], vocabulary: Vocabulary, context: int) -> tuple[Tensor, Tensor]:
    """Return every (context, next character) example of `words`, in the order of the words.

    Each character of a word, and the end mark after it, is predicted from the `context` ids before it; where the word
    has fewer, 0 fills the left. Source: Karpathy, makemore part 3, `build_dataset`.

    Returns:
        Contexts `(N, context)` and targets `(N,)`, both int64.
    Raises:
        ValueError: If `context` is below 1, or a character is not in the vocabulary.
    """
    check_whole_number("data.context", context, 1)
    if not words:
        return torch.empty((0, context), dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    ids = list(chain.from_iterable((*vocabulary.encode(word), END) for word in words))
    lengths = torch.tensor([len(word) + 1 for word in words])
    # All words in one stream, each behind `context` padding ids: its windows are then slices of the stream, and
    # example i of word w begins at i + w * context (w paddings and all earlier examples stand before it).
    word_of_example = torch.repeat_interleave(torch.arange(len(words)), lengths)  # (N,)
    begin = torch.arange(len(ids)) + word_of_example * context  # (N,)
    stream = torch.full((len(ids) + len(words) * context,), END, dtype=torch.int64)
    stream[begin + context] = torch.tensor(ids)
    examples = stream.unfold(0, context + 1, 1)[begin]  # (N, context + 1)
    return examples[:, :-1].contiguous(), examples[:, -1].contiguous()
