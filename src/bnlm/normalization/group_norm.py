"""Group normalization: the channels of each example in groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GroupNorm(nn.Module):
    """Normalise each group of an example's channels to mean 0 and variance 1, then scale and shift each channel.

    With ``channel_dim=1`` a group's statistics are over its channels and all positions, as in `torch.nn.GroupNorm`,
    whose state dict fits. With ``channel_dim=-1`` every position is normalised by itself, so that in a language model
    nothing passes from a later character to an earlier one; with one group that is LayerNorm. A group then has at least
    2 channels: a single value is its own mean, and would always give 0.

    No example depends on another, and training and eval do the same. A bias before the layer is redundant only where
    each channel is a group of its own: otherwise the mean over several channels is removed, not each channel's.

    Source: Wu & He 2018, arXiv 1803.08494, equations 1, 2 and 7.

    Args:
        num_features: C, the number of channels.
        max_groups: There are as many groups as divide C evenly, and at most this many: 32 channels in at most 8 groups
            are 8 groups of 4, 27 channels 3 groups of 9, a prime number of channels 1 group.
        eps: Added to the variance.
        channel_dim: Where the channel is: 1 for ``(N, C)`` and ``(N, C, *)``, -1 for ``(N, C)`` and ``(N, T, C)``.
    Raises:
        ValueError: If an argument is out of its range, or the input has another number of channels or a single value
            per group.
    """

    def __init__(
        self,
        num_features: int,
        max_groups: int = 32,
        eps: float = 1e-5,
        *,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(max_groups, int) or isinstance(max_groups, bool) or max_groups < 1:
            raise ValueError(f"normalization.max_groups={max_groups!r}: expected a whole number of at least 1.")
        if not eps >= 0:
            raise ValueError(f"normalization.eps={eps!r}: expected a number of at least 0.")
        if channel_dim not in (1, -1):
            raise ValueError(
                f"normalization.channel_dim={channel_dim!r}: expected 1 for (N, C, *) or -1 for (N, T, C)."
            )
        self.num_features = num_features
        most = min(max_groups, num_features if channel_dim == 1 else max(1, num_features // 2))
        self.num_groups = max(g for g in range(1, most + 1) if num_features % g == 0)
        self.eps = eps
        self.channel_dim = channel_dim
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    @property
    def makes_bias_redundant(self) -> bool:
        """Whether each channel's own mean is removed."""
        return self.num_groups == self.num_features

    def reset_parameters(self) -> None:
        """Return to the state after construction: weight 1, bias 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalised, in its shape: ``(N, C)``, ``(N, C, *)`` or, by ``channel_dim``, ``(N, T, C)``."""
        if x.dim() < 2 or x.size(self.channel_dim) != self.num_features:
            raise ValueError(
                f"GroupNorm({self.num_features}, channel_dim={self.channel_dim}): input of shape {tuple(x.shape)}; "
                f"expected {self.num_features} channels in that dimension of at least 2."
            )
        if self.channel_dim == -1 and x.dim() > 2:
            return self._normalize(x.reshape(-1, self.num_features)).view(x.shape)
        return self._normalize(x)

    def _normalize(self, x: Tensor) -> Tensor:
        if self.num_groups == self.num_features and x.numel() == len(x) * self.num_features > 0:
            raise ValueError(
                f"GroupNorm({self.num_features}): {self.num_groups} groups of an input without positions have one "
                "value each, which has no variance; expected a smaller normalization.max_groups."
            )
        return nn.functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Describe the layer as torch.nn does."""
        return f"{self.num_features}, num_groups={self.num_groups}, eps={self.eps}, channel_dim={self.channel_dim}"
