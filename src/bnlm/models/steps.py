"""How the rows of words become the inputs of a recurrent cell's steps, and its states become rows again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bnlm.models.positions import Positions


class PackedSteps:
    """Rows that lie in the order of time: first those of all words' first step, then of their second, and so on.

    Longer words come first, so that those which take a step are the first of those which took the one before (the
    layout of `torch.nn.utils.rnn.PackedSequence`).

    Args:
        sizes: How many words take each step; never more than took the one before.
    """

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """Return what of ``rows`` ``(M, C)`` belongs to each step, ``(words that take it, C)``."""
        return rows.split(self.sizes)

    def join(self, states: list[Tensor]) -> Tensor:
        """Return the rows ``(M, C)`` of all steps."""
        return torch.cat(states)


class PaddedSteps:
    """Rows word by word, where every word takes every step; the states at paddings are read by nobody.

    For a traced graph, which is to serve batches of all kinds: the number of its steps and their sizes are fixed.
    """

    def __init__(self, positions: Positions) -> None:
        self.positions = positions

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """Return what of ``rows`` ``(M, C)`` belongs to each step, ``(N, C)``, with zeros for words that have ended."""
        return self.positions.unpack(rows).unbind(1)

    def join(self, states: list[Tensor]) -> Tensor:
        """Return the rows ``(M, C)`` of all steps."""
        return self.positions.pack(torch.stack(states, dim=1))
