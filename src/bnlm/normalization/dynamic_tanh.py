"""Dynamic tanh: a layer in the place of a normalization that takes no statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DynamicTanh(nn.Module):
    """Squash every value by a tanh whose slope is learned, then scale and shift each channel.

        y = tanh(alpha * x) * weight + bias

    ``alpha`` is one number for the layer. Nothing is subtracted, so a bias before the layer is not redundant.

    Source: Zhu et al. 2025, "Transformers without Normalization", arXiv 2503.10622, equation 5 and algorithm 1.

    Args:
        num_features: C, the size of the last dimension.
        alpha: Where alpha starts, above 0 (the paper: 0.5).
    Raises:
        ValueError: If alpha is not above 0, or the input's last dimension is not C.
    """

    makes_bias_redundant = False

    def __init__(
        self,
        num_features: int,
        alpha: float = 0.5,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"normalization.alpha={alpha!r}: expected a number above 0.")
        self.num_features = num_features
        self.initial_alpha = alpha
        self.alpha = nn.Parameter(torch.full((1,), alpha, device=device, dtype=dtype))
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Return to the state after construction: alpha as given, weight 1, bias 0."""
        nn.init.constant_(self.alpha, self.initial_alpha)
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the squashed ``x``, shaped like it: ``(N, C)`` or ``(N, T, C)``."""
        if x.dim() < 2 or x.size(-1) != self.num_features:
            raise ValueError(
                f"DynamicTanh({self.num_features}): input of shape {tuple(x.shape)}; "
                f"expected (N, {self.num_features}) or (N, T, {self.num_features})."
            )
        return torch.tanh(self.alpha * x) * self.weight + self.bias

    def extra_repr(self) -> str:
        """Describe the layer as torch.nn does."""
        return f"{self.num_features}, alpha={self.initial_alpha}"
