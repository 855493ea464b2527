"""Batch normalization over virtual batches smaller than the one that is trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from bnlm.normalization.batch_norm import BatchNorm


class GhostBatchNorm(BatchNorm):
    """BatchNorm that splits a training batch and normalises each part by its own statistics.

    A large batch keeps the noise of small ones, which is part of how BatchNorm regularises. Parts hold ``ghost_size``
    examples or a few more: a batch of N is split into N // ghost_size parts whose sizes differ by one at most. The
    running statistics move by ``momentum`` once for each part, in their order; eval is BatchNorm's.

    In a run of several processes each splits its own batch; ``sync_batchnorm=True``, which would join them, is refused.

    Source: Hoffer, Hubara & Soudry 2017, arXiv 1705.08741, algorithm 1.

    Args:
        num_features: C, the number of channels.
        ghost_size: Examples in a virtual batch (the paper: 128).
        eps, momentum, affine, channel_dim: As in `BatchNorm`.
    Raises:
        ValueError: As in `BatchNorm`, and if ghost_size is not a whole number of at least 2.
    """

    def __init__(
        self,
        num_features: int,
        ghost_size: int = 128,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(ghost_size, int) or isinstance(ghost_size, bool) or ghost_size < 2:
            raise ValueError(f"normalization.ghost_size={ghost_size!r}: expected a whole number of at least 2.")
        super().__init__(num_features, eps, momentum, affine, channel_dim=channel_dim, device=device, dtype=dtype)
        self.ghost_size = ghost_size

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalised, in its shape: ``(N, C)``, ``(N, C, *)`` or, by ``channel_dim``, ``(N, T, C)``."""
        parts = len(x) // self.ghost_size if self.training and x.dim() > 1 else 1
        if parts < 2:
            return super().forward(x)
        return torch.cat([BatchNorm.forward(self, part) for part in x.tensor_split(parts)])

    def extra_repr(self) -> str:
        """Describe the layer as torch.nn does."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"
