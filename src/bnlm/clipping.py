"""Clips gradients, of networks that are stacked in the same tensors each alone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def clipped(gradients: Sequence[Tensor], value: float, algorithm: str, replicas: int = 1) -> list[Tensor]:
    """Return the gradients clipped as torch's `clip_grad_norm_` and `clip_grad_value_` do.

    Args:
        gradients: Of all parameters; with several replicas `(replicas, ...)`.
        value: The largest norm over all parameters, or the largest element.
        algorithm: `norm` or `value`.
        replicas: How many networks the gradients are of; each has a norm of its own.
    """
    if algorithm == "value":
        return [g.clamp(-value, value) for g in gradients]
    if replicas == 1:
        total = torch.stack([g.norm() for g in gradients]).norm()
        factor = (value / (total + 1e-6)).clamp(max=1.0)
        return [g * factor for g in gradients]
    # Squares added one by one: torch 2.13's inductor fails (KeyError) on a stack of norms beside SGD's momentum.
    squares = torch.zeros_like(gradients[0].flatten()[:replicas])
    for gradient in gradients:
        squares = squares + gradient.reshape(replicas, -1).square().sum(dim=1)
    factors = (value / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    return [g * factors.view(-1, *[1] * (g.dim() - 1)) for g in gradients]


def clip_each(parameters: Sequence[nn.Parameter], value: float, algorithm: str, replicas: int) -> None:
    """Clip the gradients that stacked parameters hold, of each network alone; see `clipped`."""
    having = [p for p in parameters if p.grad is not None]
    gradients = [p.grad for p in having if p.grad is not None]
    for parameter, gradient in zip(having, clipped(gradients, value, algorithm, replicas), strict=True):
        parameter.grad = gradient
