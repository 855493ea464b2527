"""Optimizers of stacked networks in which each network has a learning rate of its own."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from bnlm.optimizer_updates import update_of


class RatePerReplica(Optimizer):
    """SGD or AdamW (a subclass says which) over parameters `(R, ...)`, of which each network's part has its own rate.

    There is a group for each network: the first holds the parameters, the others nothing but their `lr`. So torch's
    schedulers count for every network what they would count for it alone, and checkpoints hold all rates.

    Args:
        params: Parameters `(R, ...)`.
        rates: The learning rate of each network, `R` of them.
        options: Further options of the optimizer, the same for all networks.
    Raises:
        ValueError: If a rate is below 0, or torch's optimizer refuses an option.
    """

    kind: ClassVar[type[Optimizer]]

    def __init__(self, params: Iterable[nn.Parameter], rates: Sequence[float], **options: Any) -> None:
        if not all(rate >= 0 for rate in rates):  # torch looks at the rate that is the same for all groups only
            raise ValueError(f"optimizer.lr={list(rates)}: expected rates of at least 0.")
        groups = [{"params": [] if index else list(params), "lr": rate} for index, rate in enumerate(rates)]
        super().__init__(groups, **options)  # of torch.optim's class, which comes next in the order
        self._step_supports_amp_scaling = False  # what torch's fused optimizers do in `step`, and this does not

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step of every network."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        group = self.param_groups[0]
        update = update_of(self.kind, group)
        constants = {name: group[name] for name in update.constants}
        names = update.state_names(group)
        lr = torch.tensor(rates_of(self), dtype=torch.float64)
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state, options = self.state[parameter], constants
            if names and names[0] not in state:
                state.update({name: _fresh(name, parameter) for name in names})
                if "dampening" in constants:
                    options = {**constants, "dampening": 0.0}  # the first gradient is the buffer, in full
            update.function(parameter, parameter.grad, tuple(state[name] for name in names), lr, **options)
        return loss


class ReplicaSGD(RatePerReplica, SGD):
    """`torch.optim.SGD` with a rate for each network."""

    kind = SGD


class ReplicaAdamW(RatePerReplica, AdamW):
    """`torch.optim.AdamW` with a rate for each network."""

    kind = AdamW


def with_rates(make: Callable[..., Optimizer], rates: Sequence[float]) -> Callable[..., Optimizer]:
    """Return what makes the optimizer that `make` makes, with a rate for each network.

    Args:
        make: `functools.partial` of torch.optim's SGD or AdamW.
        rates: The learning rate of each network.
    Raises:
        ValueError: If `make` is of another optimizer, or has options that the update does not know.
    """
    kind: Any = getattr(make, "func", make)
    options = {name: value for name, value in getattr(make, "keywords", {}).items() if name != "lr"}
    try:
        update_of(kind, options)
    except ValueError as error:
        raise ValueError(f"optimizer.lr={list(rates)}: a rate for each replica cannot be ({error}).") from error
    return partial({SGD: ReplicaSGD, AdamW: ReplicaAdamW}[kind], rates=rates, **options)


def rates_of(optimizer: Optimizer) -> list[float]:
    """Return the learning rate now, of the first group; with a rate for each network, of each."""
    groups = optimizer.param_groups if isinstance(optimizer, RatePerReplica) else optimizer.param_groups[:1]
    return [float(group["lr"]) for group in groups]


def _fresh(name: str, parameter: Tensor) -> Tensor:
    return torch.zeros(()) if name == "step" else torch.zeros_like(parameter)
