"""Root-mean-square normalization over the channels of each example."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Divide each position's channels by their root mean square, then scale each channel.

        y = x / sqrt(mean(x²) + eps) * weight

    LayerNorm without the mean and without a bias. A bias before the layer is not redundant: no shift is removed.

    Source: Zhang & Sennrich 2019, arXiv 1910.07467, equation 4. State dicts fit `torch.nn.RMSNorm`.

    Args:
        num_features: C, the size of the last dimension.
        eps: Added to the mean square; None takes the machine epsilon of the input's type, as torch.nn does.
    Raises:
        ValueError: If eps is negative, or the input's last dimension is not C.
    """

    makes_bias_redundant = False

    def __init__(
        self,
        num_features: int,
        eps: float | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if eps is not None and not eps >= 0:
            raise ValueError(f"normalization.eps={eps!r}: expected a number of at least 0, or null.")
        self.num_features = num_features
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Return to the state after construction: weight 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``, shaped like it: ``(N, C)`` or ``(N, T, C)``."""
        if x.dim() < 2 or x.size(-1) != self.num_features:
            raise ValueError(
                f"RMSNorm({self.num_features}): input of shape {tuple(x.shape)}; "
                f"expected (N, {self.num_features}) or (N, T, {self.num_features})."
            )
        return nn.functional.rms_norm(x, (self.num_features,), self.weight, self.eps)

    def extra_repr(self) -> str:
        """Describe the layer as torch.nn does."""
        return f"{self.num_features}, eps={self.eps}"
