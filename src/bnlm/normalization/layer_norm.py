"""Layer normalization over the channels of each example."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Normalise each position's channels to mean 0 and variance 1, then scale and shift each channel.

        y = (x - mean) / sqrt(biased variance + eps) * weight + bias

    The statistics are those of the last dimension, so no example depends on another, and training and eval do the same.
    A bias before the layer is not redundant: only its mean over the channels is removed.

    Source: Ba, Kiros & Hinton 2016, arXiv 1607.06450, equations 3 and 4. State dicts fit `torch.nn.LayerNorm`.

    Args:
        num_features: C, the size of the last dimension.
        eps: Added to the variance.
    Raises:
        ValueError: If eps is negative, or the input's last dimension is not C.
    """

    makes_bias_redundant = False

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not eps >= 0:
            raise ValueError(f"normalization.eps={eps!r}: expected a number of at least 0.")
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Return to the state after construction: weight 1, bias 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``, shaped like it: ``(N, C)`` or ``(N, T, C)``."""
        if x.dim() < 2 or x.size(-1) != self.num_features:
            raise ValueError(
                f"LayerNorm({self.num_features}): input of shape {tuple(x.shape)}; "
                f"expected (N, {self.num_features}) or (N, T, {self.num_features})."
            )
        return nn.functional.layer_norm(x, (self.num_features,), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Describe the layer as torch.nn does."""
        return f"{self.num_features}, eps={self.eps}"
