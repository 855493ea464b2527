"""Batch normalization written out, with the backward pass derived by hand: the reference, and the synchronised form."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bnlm.normalization.across_ranks import rows_of_ranks, sum_over_ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


def batch_norm_formula(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    unbiased: bool = False,
    group: ProcessGroup | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalise ``x`` by its batch's statistics, and return those.

    With n values per channel, the sums running over all of them, and c = 1 if ``unbiased``, else 0:

        mean = Σ x / n        squares = Σ (x - mean)²        rstd = 1 / sqrt(squares / (n - c) + eps)
        x̂ = (x - mean) · rstd        y = x̂ · weight + bias

    The backward pass, from g = ∂loss/∂y. x acts on y directly, through the mean (whose own derivative is 1/n each) and
    through the variance (2 (x - mean) / (n - c) each; that the variance depends on the mean adds nothing, because
    Σ (x - mean) = 0). The three summed and simplified are

        ∂loss/∂bias = Σ g        ∂loss/∂weight = Σ g x̂
        ∂loss/∂x = weight · rstd · (g - Σ g / n - x̂ · Σ g x̂ / (n - c))

    which for c = 1 is the lecture's ``bngain*bnvar_inv/n * (n*g - g.sum(0) - n/(n-1)*bnraw*(g*bnraw).sum(0))``: the
    gradient loses its mean and its component along x̂, the two directions that normalization made irrelevant.

    With a ``group`` the sums of mean, squares and ∂loss/∂x run over the values of all its processes, however many each
    has (none too), by one all-reduce in each pass. The gradients of weight and bias are this process's share, which
    DistributedDataParallel reduces like any other.

    All is computed in float32 where ``x`` has half precision, otherwise in its own; differentiable any number of times.

    Source: Ioffe & Szegedy 2015, arXiv 1502.03167, section 3; Karpathy, makemore part 4, exercise 3.

    Args:
        x: ``(N, C)`` or ``(N, C, *)``.
        weight, bias: ``(C,)``, or None for 1 and 0.
        eps: Added to the variance.
        unbiased: Whether the variance that normalises divides by n - 1.
        group: Processes to take the statistics over; None for this one alone.
    Returns:
        y shaped and typed like ``x``; mean ``(C,)``; squares ``(C,)``; n ``()``. The last three carry no gradient.
    """
    return BatchNormFormula.apply(x, weight, bias, eps, int(unbiased), group)


class _WrittenOut(threading.local):  # not a ContextVar, which torch.compile cannot look into
    on = False


_written_out = _WrittenOut()


@contextmanager
def written_out() -> Iterator[None]:
    """Within it, a BatchNorm in training uses this module's formula, for a compiler to fuse with what is around it.

    Of several networks that `torch.vmap` maps over: vmap's own rule for torch's kernel moves the dimension of the
    networks behind that of the batch and back, which costs more than all else in the layer.
    """
    before, _written_out.on = _written_out.on, True
    try:
        yield
    finally:
        _written_out.on = before


def is_written_out() -> bool:
    """Return whether `written_out` is in effect."""
    return _written_out.on


def statistics(x: Tensor, group: ProcessGroup | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean ``(C,)``, sum of squared distances from it ``(C,)`` and number of values ``()`` of each channel.

    Each process centres its own values before it squares them, and the parts are joined by Chan, Golub & LeVeque 1979
    (equation 2.1): sums of plain squares would lose a small variance beside a large mean.

    Args:
        x: ``(N, C, *)``, not of half precision.
    """
    around = [dim for dim in range(x.dim()) if dim != 1]
    n = x.numel() // x.size(1)
    mean = x.sum(around) / max(n, 1)  # a process without values adds nothing
    squares = (x - _beside(mean, x)).square().sum(around)
    count = torch.full((), n, dtype=x.dtype, device=x.device)
    if group is None:
        return mean, squares, count
    counts, means, parts = rows_of_ranks(torch.cat([count[None], mean, squares]), group).split([1, *2 * mean.shape], 1)
    count = counts.sum()
    mean = (counts * means).sum(0) / count.clamp(min=1)
    return mean, parts.sum(0) + (counts * (means - mean).square()).sum(0), count


class BatchNormFormula(torch.autograd.Function):
    """The autograd node of `batch_norm_formula`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, correction: int, group: ProcessGroup | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return y, mean, squares and n."""
        wide = _at_least_float32(x)
        mean, squares, count = statistics(wide, group)
        y = (wide - _beside(mean, x)) * _beside(_rstd(squares, count, eps, correction), x)
        if weight is not None:
            y = y * _beside(weight, x)
        if bias is not None:
            y = y + _beside(bias, x)
        return y.to(x.dtype), mean, squares, count

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the backward pass needs."""
        x, weight, bias, ctx.eps, ctx.correction, ctx.group = inputs
        _, mean, squares, count = output
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(mean, squares, count)
        ctx.save_for_backward(x, weight, mean, squares, count)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        x, weight, mean, squares, count = ctx.saved_tensors
        wide, g = _at_least_float32(x), _at_least_float32(grad)
        if torch.is_grad_enabled():  # to be differentiated again: then the statistics must be seen to depend on x
            mean, squares, count = statistics(wide, ctx.group)
        rstd = _rstd(squares, count, ctx.eps, ctx.correction)
        x_hat = (wide - _beside(mean, x)) * _beside(rstd, x)
        around = [dim for dim in range(x.dim()) if dim != 1]
        sums = torch.stack([g.sum(around), (g * x_hat).sum(around)])
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            of_g, of_g_x_hat = sum_over_ranks(sums, ctx.group)
            along_mean = of_g / count.clamp(min=1)
            along_x_hat = of_g_x_hat / (count - ctx.correction).clamp(min=1)
            scale = rstd if weight is None else rstd * weight
            grad_x = _beside(scale, x) * (g - _beside(along_mean, x) - x_hat * _beside(along_x_hat, x))
            grad_x = grad_x.to(x.dtype)
        if weight is not None and ctx.needs_input_grad[1]:
            grad_weight = sums[1].to(weight.dtype)
        if ctx.bias_dtype is not None and ctx.needs_input_grad[2]:
            grad_bias = sums[0].to(ctx.bias_dtype)
        return grad_x, grad_weight, grad_bias, None, None, None


def _rstd(squares: Tensor, count: Tensor, eps: float, correction: int) -> Tensor:
    return torch.rsqrt(squares / (count - correction).clamp(min=1) + eps)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _beside(vector: Tensor, x: Tensor) -> Tensor:
    """View ``(C,)`` as ``(C, 1, ...)``, so that it meets the channels of ``x`` ``(N, C, *)``."""
    return vector.view(-1, *[1] * (x.dim() - 2))
