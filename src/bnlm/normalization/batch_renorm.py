"""Batch renormalization: training too uses the running statistics, though gradients flow through the batch's."""

from __future__ import annotations

import torch
from torch import Tensor

from bnlm.normalization.batch_norm import BatchNorm, batch_norm
from bnlm.normalization.batch_norm_formula import statistics


class BatchRenorm(BatchNorm):
    """BatchNorm whose training output is corrected towards what the running statistics would give.

        y = ((x - mean) / sqrt(var + eps) * r + d) * weight + bias
        r = sqrt(var + eps) / sqrt(running_var + eps)                clipped to [1 / r_max, r_max]
        d = (mean - running_mean) / sqrt(running_var + eps)          clipped to [-d_max, d_max]

    r and d are constants for the gradient. Unclipped, y is the eval output, so small or dependent batches train what
    is used later. The first ``warmup_steps`` batches are plain BatchNorm (r = 1, d = 0), until the running statistics
    mean something; then the limits grow linearly: d's reaches ``d_max`` at 5, r's ``r_max`` at 8 times
    ``warmup_steps``, as in the paper (5,000, 25,000 and 40,000). The running variance is the unbiased one, as in all of
    torch.

    A bias before the layer is redundant. It is part of the batch's mean, so its gradient is 0; where d lets it through,
    as in eval, that is only until the running mean has followed.

    In a run of several processes each has its own r and d; ``sync_batchnorm=True`` is refused.

    Source: Ioffe 2017, arXiv 1702.03275, algorithm 1 and section 4.

    Args:
        num_features: C, the number of channels.
        r_max: Largest correction of the scale, at least 1.
        d_max: Largest correction of the mean, in standard deviations, at least 0.
        warmup_steps: Batches before the correction sets in; 0 for at once.
        momentum: Weight of the new batch in the running statistics. The paper's 0.01 suits long runs.
        eps, affine, channel_dim: As in `BatchNorm`.
    Raises:
        ValueError: As in `BatchNorm`, and if a limit is out of its range.
    """

    def __init__(
        self,
        num_features: int,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup_steps: int = 5000,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        affine: bool = True,
        *,
        channel_dim: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not r_max >= 1:
            raise ValueError(f"normalization.r_max={r_max!r}: expected a number of at least 1.")
        if not d_max >= 0:
            raise ValueError(f"normalization.d_max={d_max!r}: expected a number of at least 0.")
        if not isinstance(warmup_steps, int) or isinstance(warmup_steps, bool) or warmup_steps < 0:
            raise ValueError(f"normalization.warmup_steps={warmup_steps!r}: expected a whole number of at least 0.")
        super().__init__(num_features, eps, momentum, affine, channel_dim=channel_dim, device=device, dtype=dtype)
        self.r_max = r_max
        self.d_max = d_max
        self.warmup_steps = warmup_steps

    def limits(self) -> tuple[Tensor, Tensor]:
        """Return the limits of r and d, scalars, for the next batch."""
        assert self.num_batches_tracked is not None
        assert self.running_var is not None
        seen = self.num_batches_tracked.to(self.running_var.dtype)
        if self.warmup_steps == 0:
            return torch.full_like(seen, self.r_max), torch.full_like(seen, self.d_max)
        past = seen / self.warmup_steps - 1  # in lengths of the warm-up
        return 1 + (self.r_max - 1) * (past / 7).clamp(0, 1), self.d_max * (past / 4).clamp(0, 1)

    def _normalize(self, x: Tensor) -> Tensor:
        mean, var, count = self.running_mean, self.running_var, self.num_batches_tracked
        n = x.numel() // self.num_features
        if not self.training or not self.track_running_stats or n < 2:
            return super()._normalize(x)
        assert mean is not None
        assert var is not None
        assert count is not None
        with torch.no_grad():
            batch_mean, squares, _ = statistics(x.to(torch.promote_types(x.dtype, torch.float32)))
            std = torch.sqrt(var + self.eps)
            r_limit, d_limit = self.limits()
            r = (torch.sqrt(squares / n + self.eps) / std).clamp(1 / r_limit, r_limit)
            d = ((batch_mean - mean) / std).clamp(-d_limit, d_limit)
            count.add_(1)
            self._move_running_statistics(batch_mean, squares / (n - 1))
        weight = r if self.weight is None else r * self.weight
        shift = d if self.weight is None else d * self.weight
        if self.bias is not None:
            shift = shift + self.bias
        return batch_norm(x, weight, shift, None, None, training=True, momentum=0.0, eps=self.eps)

    def extra_repr(self) -> str:
        """Describe the layer as torch.nn does."""
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}, warmup_steps={self.warmup_steps}"
