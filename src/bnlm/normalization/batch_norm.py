"""Batch normalization, with torch.nn's state and both forms of the variance."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """Return ``(x - mean) / sqrt(biased variance + eps) * weight + bias`` by torch's own kernel.

    `torch.nn.functional.batch_norm` without its checks: they cost a tenth of the layer on a small batch, and refuse
    ``eps = 0``, which the kernel computes rightly.

    Args:
        x: ``(N, C)`` or ``(N, C, *)``.
        weight, bias: ``(C,)``, or None for 1 and 0.
        running_mean, running_var: ``(C,)``, or None. In training they move by ``momentum`` towards the batch's mean and
            unbiased variance, in place; otherwise they take the place of the batch's statistics.
        momentum: Weight of the new batch.
    Returns:
        Tensor shaped like ``x``.
    """
    cudnn = torch.backends.cudnn.enabled
    return torch.batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps, cudnn)


def unbiased_batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    momentum: float,
    eps: float,
) -> Tensor:
    """Return ``(x - mean) / sqrt(unbiased variance + eps) * weight + bias``, statistics over the batch.

    With n values per channel the unbiased variance is n / (n - 1) times the biased one, so

        unbiased + eps = n / (n - 1) * (biased + eps * (n - 1) / n)

    and the form is the biased one with ``eps * (n - 1) / n`` for eps and ``weight * sqrt((n - 1) / n)`` for weight:
    the fast kernel computes this form too. Arguments as in `batch_norm`; needs n > 1.
    """
    n = x.numel() // x.size(1)
    shrink = (n - 1) / n
    scale = math.sqrt(shrink)
    if weight is None:  # then there is no bias either
        out = batch_norm(x, None, None, running_mean, running_var, training=True, momentum=momentum, eps=eps * shrink)
        return out * scale
    weight = weight * scale
    return batch_norm(x, weight, bias, running_mean, running_var, training=True, momentum=momentum, eps=eps * shrink)


class BatchNorm(nn.Module):
    """Normalise each channel to mean 0 and variance 1 over all other dimensions, then scale and shift it.

        y = (x - mean) / sqrt(var + eps) * weight + bias

    In training mean and var are the batch's; in eval they are the running ones, which training gathers (with
    ``track_running_stats=False`` there are none, and eval too takes the batch's). Parameters and buffers have the names
    and meaning of `torch.nn.BatchNorm1d`, so a state dict moves both ways.

    Source: Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2 (weight is their gamma, bias their beta); with
    ``unbiased=True`` Karpathy, makemore part 3, which departs from the paper in dividing by the unbiased variance in
    training. The running variance is unbiased in both.

    Args:
        num_features: C, the number of channels.
        eps: Added to the variance. 0 is allowed (the lecture's first form); the output of a constant channel is then
            undefined.
        momentum: Weight of the *new* batch in the running statistics, as everywhere in torch (some other libraries
            weigh the old average). None averages all batches seen, each with the same weight.
        affine: Whether there are ``weight`` and ``bias``.
        track_running_stats: Whether there are running statistics.
        channel_dim: Where the channel is: 1 for ``(N, C)`` and ``(N, C, *)``, -1 for ``(N, C)`` and ``(N, T, C)``.
        unbiased: Whether the variance that normalises a batch divides by n - 1 instead of n.
    Raises:
        ValueError: If an argument is out of its range, the input has another number of channels or fewer than 2
            dimensions, or a batch to take statistics from has a single value per channel.
    """

    makes_bias_redundant = True  # a shift of the input is subtracted with the mean

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        channel_dim: int = 1,
        unbiased: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not eps >= 0:
            raise ValueError(f"normalization.eps={eps!r}: expected a number of at least 0.")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"normalization.momentum={momentum!r}: expected a number from 0 to 1, or null.")
        if channel_dim not in (1, -1):
            raise ValueError(
                f"normalization.channel_dim={channel_dim!r}: expected 1 for (N, C, *) or -1 for (N, T, C)."
            )
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.channel_dim = channel_dim
        self.unbiased = unbiased
        vector = torch.empty(num_features, device=device, dtype=dtype)
        self.register_parameter("weight", nn.Parameter(vector) if affine else None)
        self.register_parameter("bias", nn.Parameter(vector.clone()) if affine else None)
        count = torch.zeros((), dtype=torch.long, device=device)
        self.register_buffer("running_mean", vector.clone() if track_running_stats else None)
        self.register_buffer("running_var", vector.clone() if track_running_stats else None)
        self.register_buffer("num_batches_tracked", count if track_running_stats else None)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget all batches: mean 0, variance 1, count 0."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Return to the state after construction: weight 1, bias 0, no batch seen."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalised, in its shape: ``(N, C)``, ``(N, C, *)`` or, by ``channel_dim``, ``(N, T, C)``."""
        shape = x.shape
        if len(shape) < 2 or shape[self.channel_dim] != self.num_features:
            raise ValueError(self._explain_shape(shape))
        if self.channel_dim == -1 and len(shape) > 2:
            return self._normalize(x.reshape(-1, self.num_features)).view(shape)  # (N * T, C): free if contiguous
        return self._normalize(x)

    def _normalize(self, x: Tensor) -> Tensor:
        """Normalise ``(N, C, *)`` and keep count of the batches."""
        momentum = self.momentum
        mean, var = self.running_mean, self.running_var
        training = self.training
        if not training:
            training = mean is None
        elif not self.track_running_stats:
            mean = var = None  # torch.nn too lets users switch tracking off on a built layer
        if training:
            n = x.numel() // self.num_features
            if n == 1:
                raise ValueError(self._explain_single_value(x.shape))
            if mean is not None and self.num_batches_tracked is not None:
                count = self.num_batches_tracked.add_(1)
                if momentum is None:
                    momentum = 1.0 / float(count)
            momentum = momentum or 0.0
            if self.unbiased and n > 1:
                return unbiased_batch_norm(x, self.weight, self.bias, mean, var, momentum=momentum, eps=self.eps)
        return batch_norm(
            x, self.weight, self.bias, mean, var, training=training, momentum=momentum or 0.0, eps=self.eps
        )

    def _explain_shape(self, shape: torch.Size) -> str:
        given = f"BatchNorm({self.num_features}, channel_dim={self.channel_dim}): input of shape {tuple(shape)}"
        if len(shape) < 2:
            return f"{given} has too few dimensions; expected (N, C), (N, C, *) or, with channel_dim=-1, (N, T, C)."
        text = f"{given} has {shape[self.channel_dim]} channels in that dimension; expected {self.num_features}."
        if self.channel_dim == 1 and shape[-1] == self.num_features:
            text += " The last dimension fits: for (N, T, C) pass channel_dim=-1."
        elif self.channel_dim == -1 and shape[1] == self.num_features:
            text += " Dimension 1 fits: for (N, C, *) pass channel_dim=1."
        return text

    def _explain_single_value(self, shape: torch.Size) -> str:
        return (
            f"BatchNorm({self.num_features}): a batch of shape {tuple(shape)} has one value per channel, which has no "
            "variance. Train on at least 2 examples (a larger batch, or drop the last incomplete one), or call eval() "
            "to use the running statistics."
        )

    def extra_repr(self) -> str:
        """Describe the layer as torch.nn does."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}, channel_dim={self.channel_dim}, unbiased={self.unbiased}"
        )
