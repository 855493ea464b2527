"""Batch normalization, with torch.nn's state, both forms of the variance, and statistics over all processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnlm.normalization.across_ranks import group_to_join
from bnlm.normalization.batch_norm_formula import batch_norm_formula, is_written_out

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


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
    the fast kernel computes this form too. Arguments as in `batch_norm`; needs n > 1. The kernel takes eps as a number,
    so a graph made by `torch.compile` or `torch.export` in training is for one n.
    """
    n = x.numel() // x.size(1)
    shrink = (n - 1) / n
    scale = math.sqrt(shrink)
    if weight is None:  # then there is no bias either
        out = batch_norm(x, None, None, running_mean, running_var, training=True, momentum=momentum, eps=eps * shrink)
        return out * scale
    weight = weight * scale
    return batch_norm(x, weight, bias, running_mean, running_var, training=True, momentum=momentum, eps=eps * shrink)


class BatchNorm(_BatchNorm):
    """Normalise each channel to mean 0 and variance 1 over all other dimensions, then scale and shift it.

        y = (x - mean) / sqrt(var + eps) * weight + bias

    In training mean and var are the batch's; in eval they are the running ones, which training gathers (with
    ``track_running_stats=False`` there are none, and eval too takes the batch's). It takes the place of
    `torch.nn.BatchNorm1d`, `2d`, `3d` and `SyncBatchNorm`: parameters and buffers have their names and meaning, so a
    state dict moves both ways, and it is a `_BatchNorm`, so that what treats batch normalization specially
    (`torch.optim.swa_utils.update_bn`, mixed precision under FSDP, ...) treats it so.

    The backward pass, with x̂ = (x - mean) / sqrt(var + eps), g = ∂loss/∂y and n values per channel, is

        ∂loss/∂x = weight / sqrt(var + eps) · (g - Σ g / n - x̂ · Σ g x̂ / n)        n - 1 for the last n if unbiased

    (the lecture's part 4). `bnlm.normalization.batch_norm_formula` derives it and computes it in plain torch; here
    torch's kernel does the same in a third of the time, and the formula itself runs where there is no kernel: across
    processes.

    Source: Ioffe & Szegedy 2015, arXiv 1502.03167, algorithms 1 and 2 (weight is their gamma, bias their beta); with
    ``unbiased=True`` Karpathy, makemore part 3, which departs from the paper in dividing by the unbiased variance in
    training. The running variance is unbiased in both.

    **Several processes.** With ``sync=False`` each normalises by its own batch. DistributedDataParallel copies the
    buffers of rank 0 to all others before each forward, so what is used in eval, and saved, are the statistics that
    rank 0 has gathered from its own batches alone. With ``sync=True`` the statistics are those of all processes'
    batches joined, whatever their sizes, and so are the buffers on every rank. Lightning's
    ``Trainer(sync_batchnorm=True)`` and `torch.nn.SyncBatchNorm.convert_sync_batchnorm` set it. Every process must then
    call the layer equally often, in forward and in backward.

    **Gradient accumulation.** Each micro-batch is normalised by its own statistics and moves the running ones by
    ``momentum``: four micro-batches of 8 are not a batch of 32, and the running statistics see four steps.

    **Half precision.** Statistics are taken in float32. Input in bfloat16 or float16, as autocast makes it, goes with
    parameters and buffers in float32, which keep their type.

    **Empty batches** (no example, or no position) pass; they are counted, and leave the running statistics alone.

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
        sync: Whether a training batch is that of all processes together. Without a running torch.distributed, or with
            one process, it makes no difference.
        bias: Whether an affine layer has a ``bias``.
    Raises:
        ValueError: If an argument is out of its range, the input has another number of channels or fewer than 2
            dimensions, or a batch to take statistics from has a single value per channel.
    """

    makes_bias_redundant = True  # a shift of the input is subtracted with the mean

    weight: nn.Parameter | None  # type: ignore[assignment]  # torch leaves out that it may be None
    bias: nn.Parameter | None  # type: ignore[assignment]
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
        sync: bool = False,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not eps >= 0:
            raise ValueError(f"normalization.eps={eps!r}: expected a number of at least 0.")
        if momentum is not None and not 0 <= momentum <= 1:
            raise ValueError(f"normalization.momentum={momentum!r}: expected a number from 0 to 1, or null.")
        if channel_dim not in (1, -1):
            raise ValueError(
                f"normalization.channel_dim={channel_dim!r}: expected 1 for (N, C, *) or -1 for (N, T, C)."
            )
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        if not bias:
            self.register_parameter("bias", None)
        self.channel_dim = channel_dim
        self.unbiased = unbiased
        self.sync = sync
        self.process_group: ProcessGroup | None = None  # None: all processes
        self.converted_from: type[_BatchNorm] | None = None  # the class that `convert` gives back

    def reset_parameters(self) -> None:
        """Return to the state after construction: weight 1, bias 0, no batch seen."""
        self.reset_running_stats()
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
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
        buffers = self._buffers  # by attribute, each look-up would cost as much as a small operation
        mean, var = buffers["running_mean"], buffers["running_var"]
        if not self.training:
            if mean is not None:
                return batch_norm(x, self.weight, self.bias, mean, var, training=False, momentum=0.0, eps=self.eps)
        elif not self.track_running_stats:
            mean = var = None  # torch.nn too lets users switch tracking off on a built layer
        if self.training:
            group = group_to_join(self.process_group) if self.sync else None
            # The kernel of the unbiased form takes n within a number, which a graph for any n does not have.
            any_n = self.unbiased and isinstance(x.shape[0], torch.SymInt)
            if group is not None or is_written_out() or any_n:
                return self._normalize_by_formula(x, group)
        n = x.numel() // self.num_features
        if n == 1:
            raise ValueError(self._explain_single_value(x.shape))
        if mean is None or var is None:
            return self._by_kernel(x, n, None, None, 0.0)
        count = buffers["num_batches_tracked"]
        if count is not None:
            count.add_(1)
        if self.momentum is None and count is not None and n > 0:
            # The kernel wants the weight as a number, which to read from the counter would break a compiled graph.
            mean, var = torch.zeros_like(mean), torch.zeros_like(var)
            out = self._by_kernel(x, n, mean, var, 1.0)
            self._move_running_statistics(mean, var)
            return out
        return self._by_kernel(x, n, mean, var, self.momentum or 0.0)

    def _by_kernel(self, x: Tensor, n: int, mean: Tensor | None, var: Tensor | None, momentum: float) -> Tensor:
        if self.unbiased and n > 1:
            return unbiased_batch_norm(x, self.weight, self.bias, mean, var, momentum=momentum, eps=self.eps)
        return batch_norm(x, self.weight, self.bias, mean, var, training=True, momentum=momentum, eps=self.eps)

    def _normalize_by_formula(self, x: Tensor, group: ProcessGroup | None) -> Tensor:
        """Normalise a batch, or this process's part of it by the statistics of all parts."""
        y, mean, squares, n = batch_norm_formula(
            x, self.weight, self.bias, eps=self.eps, unbiased=self.unbiased, group=group
        )
        if self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            # Fewer than 2 values on all processes together have no variance to go by.
            self._move_running_statistics(mean, squares / (n - 1).clamp(min=1), share=(n > 1).to(n.dtype))
        return y

    @torch.no_grad()
    def _move_running_statistics(self, mean: Tensor, var: Tensor, share: Tensor | float = 1.0) -> None:
        """Take the mean and unbiased variance of a batch, which has been counted, into the running statistics."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        for running, new in ((self.running_mean, mean), (self.running_var, var)):
            weight = self.momentum if self.momentum is not None else self.num_batches_tracked.to(new.dtype).reciprocal()
            running.add_((new - running) * (weight * share))

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
            f"track_running_stats={self.track_running_stats}, channel_dim={self.channel_dim}, "
            f"unbiased={self.unbiased}, sync={self.sync}"
            + ("" if self.bias is not None or not self.affine else ", bias=False")
        )
