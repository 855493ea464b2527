"""The kernel of torch's fused optimizers called by itself: a step of a small network has no time for more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer
from torch.optim import optimizer as torch_optimizer

Update = Callable[[], object]


def direct_update(optimizer: Optimizer) -> Update:
    """Return a function that does what `optimizer.step()` does to parameters and state, bit for bit.

    For SGD and AdamW with `fused=True`, one group of parameters of one kind, and no hook on steps, it calls their
    kernel with lists that are made once, of views that autograd does not follow: a third of the time. Of any other
    optimizer it is `step` itself. To be asked for anew when the state may have been replaced, and after a first step,
    which makes the state.
    """
    kernel = _KERNELS.get(type(optimizer))
    if kernel is None or len(optimizer.param_groups) != 1 or _is_heard(optimizer):
        return optimizer.step
    (group,) = optimizer.param_groups
    parameters: list[Tensor] = [p for p in group["params"] if p.requires_grad]
    one_kind = len({(p.dtype, p.device) for p in parameters}) == 1
    if not (group.get("fused") and one_kind and isinstance(group["lr"], float)):
        return optimizer.step
    run = kernel(optimizer, group, parameters)
    if run is None:
        return optimizer.step

    def update() -> None:
        gradients = [p.grad for p in parameters]
        if any(g is None for g in gradients):  # some parameters took no part in this loss
            optimizer.step()
        else:
            run(gradients)

    return update


def _is_heard(optimizer: Optimizer) -> bool:
    """Return whether somebody listens to every step of this optimizer, or of all.

    A hook that has to hear of an observed step alone says so by `needs_every_step = False`.
    """
    of_all = (torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks)
    hooks = (*of_all, optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks)
    return any(getattr(hook, "needs_every_step", True) for each in hooks for hook in each.values())


def _sgd(optimizer: Optimizer, group: dict[str, Any], parameters: list[Tensor]) -> Callable[[Any], None] | None:
    buffers: list[Tensor] = []
    if group["momentum"]:
        buffers = [optimizer.state[p].get("momentum_buffer") for p in parameters]
        if any(buffer is None for buffer in buffers):
            return None
    names = ("weight_decay", "momentum", "dampening", "nesterov", "maximize")
    constants = {name: group[name] for name in names}
    values = [p.detach() for p in parameters]

    def run(gradients: list[Tensor]) -> None:
        torch._fused_sgd_(values, gradients, buffers, lr=group["lr"], is_first_step=False, **constants)

    return run


def _adamw(optimizer: Optimizer, group: dict[str, Any], parameters: list[Tensor]) -> Callable[[Any], None] | None:
    if group["amsgrad"] or any("step" not in optimizer.state[p] for p in parameters):
        return None
    averages, squares, steps = (
        [optimizer.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "step")
    )
    beta1, beta2 = group["betas"]
    constants = {name: group[name] for name in ("weight_decay", "eps", "amsgrad", "maximize")}
    values = [p.detach() for p in parameters]

    def run(gradients: list[Tensor]) -> None:
        torch._foreach_add_(steps, 1)
        torch._fused_adamw_(
            values, gradients, averages, squares, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2, **constants
        )

    return run


_KERNELS = {SGD: _sgd, AdamW: _adamw}
