"""Which positions of a batch of padded words exist, and the way between padded tensors and rows of those alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bnlm.models.steps import PackedSteps, PaddedSteps

PADDING = 0  # the id that begins each word, and fills the rest of the row behind its last character


class Positions:
    """The positions of words ``idx`` ``(N, T)``: the first of each row, and those with an id that is not `PADDING`.

    Sequence models compute on rows ``(M, C)``, one for each position that exists, and go back to ``(N, T, C)`` only
    where positions look at each other. So a normalization never sees a padding, and no time is spent on any.

    Attributes:
        rows: ``(M,)``: where each position lies in ``(N * T)``, word by word.
        times: ``(M,)``: its place within its word, from 0.
    """

    def __init__(self, idx: Tensor) -> None:
        self.n, self.t = idx.shape
        exists = idx != PADDING
        exists[:, 0] = True
        self.rows = exists.flatten().nonzero().squeeze(1)
        torch._check(self.rows.shape[0] >= self.n)  # tells a traced layer, which does not see M, that it has values
        self.times = self.rows.remainder(self.t)

    def pack(self, x: Tensor) -> Tensor:
        """Return the rows ``(M, *)`` of ``x`` ``(N, T, *)``."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, rows: Tensor) -> Tensor:
        """Return ``rows`` ``(M, C)`` in their places of ``(N, T, C)``, with zeros at the paddings."""
        empty = rows.new_zeros(self.n * self.t, rows.shape[1])
        return empty.index_copy(0, self.rows, rows).view(self.n, self.t, -1)

    def in_steps(self) -> PackedSteps | PaddedSteps:
        """Return how rows are cut into a recurrent cell's steps.

        Unless a graph is traced, it first brings the positions into the order of time.
        """
        if isinstance(self.rows.shape[0], torch.SymInt):
            return PaddedSteps(self)
        words = self.rows.div(self.t, rounding_mode="floor")
        lengths = torch.bincount(words, minlength=self.n)
        # The key sorts by time, then longer words first, then their order in the batch.
        key = (self.times * (self.t + 1) + (self.t - lengths[words])) * self.n + words
        sizes = torch.bincount(self.times).tolist()
        order = key.argsort()
        self.rows, self.times = self.rows[order], self.times[order]
        return PackedSteps(sizes)


def embedded(idx: Tensor, characters: nn.Embedding, places: nn.Embedding) -> tuple[Tensor, Positions]:
    """Return the sum of the embeddings of each position's character and of its place, ``(M, C)``, and the positions.

    Raises:
        ValueError: If there are more positions than ``places`` knows.
    """
    if idx.shape[1] > places.num_embeddings:
        raise ValueError(
            f"{idx.shape[1]} positions given; the model was built for at most {places.num_embeddings} (data.context)."
        )
    positions = Positions(idx)
    return characters(positions.pack(idx)) + places(positions.times), positions
