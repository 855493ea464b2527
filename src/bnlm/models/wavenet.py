"""The hierarchical model over a window: neighbours are fused two by two, level by level."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from bnlm.models.activation import activation as make_activation
from bnlm.models.block import Block, NormalizationFactory
from bnlm.models.sizes import check_sizes


class WaveNet(nn.Module):
    """Embeds each character, then fuses two neighbours into one with a block, until one vector stands for the window.

    A window of 8 has three levels: 8 characters, 4 pairs, 2 groups of four, 1 of eight. A level's block is the same
    wherever it works, so its normalization takes its statistics over batch and position: it sees one row for each
    position of each example, ``(N * positions, n_hidden)``, those of an example side by side.

    Source: Karpathy, makemore part 5, after the tree of van den Oord et al. 2016, "WaveNet", arXiv 1609.03499 (without
    its gates, residual connections and sharing between overlapping windows). With the defaults, 27 characters, a
    context of 8 and a BatchNorm, it has the lecture's 76,579 parameters.

    Args:
        vocab_size: Number of different characters.
        context: Characters in a window; one that is no power of 2 is filled up on the left with the id 0.
        n_embd: Numbers that describe a character.
        n_hidden: Units of each level.
        activation: Name as in `bnlm.models.activation`.
        normalization: Makes the layer after each level's Linear from its number of features; None for none.
    Raises:
        ValueError: If a size is not a whole number of at least 1, or the activation is unknown.
    """

    def __init__(
        self,
        vocab_size: int,
        context: int,
        n_embd: int = 24,
        n_hidden: int = 128,
        activation: str = "tanh",
        normalization: NormalizationFactory | None = None,
    ) -> None:
        super().__init__()
        check_sizes(vocab_size=vocab_size, context=context, n_embd=n_embd, n_hidden=n_hidden)
        levels = max(1, (context - 1).bit_length())  # the least k with 2^k >= context; a context of 1 is filled up to 2
        self.missing = 2**levels - context
        self.embedding = nn.Embedding(vocab_size, n_embd)
        self.levels = nn.Sequential(
            *(
                Block(2 * (n_hidden if level else n_embd), n_hidden, normalization, make_activation(activation))
                for level in range(levels)
            )
        )
        self.output = Block(n_hidden, vocab_size)

    def forward(self, idx: Tensor) -> Tensor:
        """Return logits ``(N, vocab_size)`` of the character after each window ``idx`` ``(N, context)``, int64."""
        if self.missing:
            idx = F.pad(idx, (self.missing, 0))
        x = self.embedding(idx)  # (N, 2^levels, n_embd)
        for level in self.levels:
            # The rows of an example are neighbours in memory: two positions become one row, (N * positions / 2, 2 * C).
            x = level(x.reshape(-1, 2 * x.shape[-1]))
        return self.output(x)
