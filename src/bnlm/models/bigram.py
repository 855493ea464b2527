"""The simplest language model: a table of which character follows which."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlm.models.block import NormalizationFactory
from bnlm.models.sizes import check_sizes


class Bigram(nn.Module):
    """A row of logits for each character; it looks at a window's last one only.

    Trained, it comes to `bigram_table`. Source: Karpathy, makemore part 1 and makemore.py's `Bigram`.

    Args:
        vocab_size: Number of different characters.
        context, normalization: As every model is given them; a table has no use for either.
    Raises:
        ValueError: If `vocab_size` is not a whole number of at least 1.
    """

    def __init__(self, vocab_size: int, context: int = 1, normalization: NormalizationFactory | None = None) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size)
        self.logits = nn.Embedding(vocab_size, vocab_size)

    def forward(self, idx: Tensor) -> Tensor:
        """Return logits ``(N, vocab_size)`` of the character after each window ``idx`` ``(N, context)``, int64."""
        return self.logits(idx[:, -1])


def bigram_table(last: Tensor, following: Tensor, vocab_size: int, smoothing: float = 0.0) -> Tensor:
    """Return the log-probabilities ``(vocab_size, vocab_size)`` of each character after each, by counting.

    With ``smoothing=0`` it is the maximum of the likelihood: no table has a lower mean loss on these pairs. A character
    that nothing follows has a uniform row.

    Source: Karpathy, makemore part 1 (which adds a smoothing of 1).

    Args:
        last, following: Ids ``(N,)`` of characters, and of those after them.
        smoothing: Added to each count.
    Raises:
        ValueError: If ``smoothing`` is below 0.
    """
    if not smoothing >= 0:
        raise ValueError(f"smoothing={smoothing!r}: expected a number of at least 0.")
    pairs = torch.bincount(last * vocab_size + following, minlength=vocab_size**2)
    counts = pairs.view(vocab_size, vocab_size).double() + smoothing
    counts[counts.sum(dim=1) == 0] = 1.0
    return (counts / counts.sum(dim=1, keepdim=True)).log()
