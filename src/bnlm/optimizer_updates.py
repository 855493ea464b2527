"""SGD's and AdamW's update of one parameter as tensor operations, with one learning rate or one for each replica."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer


@dataclass(frozen=True)
class Update:
    """The update of an optimizer.

    Args:
        function: `function(parameter, gradient, state, lr, **constants)` changes parameter and state in place. `lr` is
            float64, as Python counts it: `()`, or of stacked networks `(R,)`, one for each.
        constants: Which options of the optimizer's group the function takes.
        state: The tensors that the optimizer keeps for each parameter, in the function's order.
    """

    function: Callable[..., None]
    constants: tuple[str, ...]
    state: tuple[str, ...]

    def state_names(self, group: dict[str, Any]) -> tuple[str, ...]:
        """Return the names of the tensors that are kept with the options of this group."""
        return () if "momentum" in self.constants and not group["momentum"] else self.state


#: Options that would need another update.
REFUSED = ("maximize", "amsgrad", "differentiable")


def update_of(kind: type[Optimizer], options: dict[str, Any]) -> Update:
    """Return the update of an optimizer of this class and these options.

    Raises:
        ValueError: If the class is another than SGD and AdamW, or an option is on that the update does not know.
    """
    if kind not in UPDATES:
        raise ValueError(f"its update is known for SGD and AdamW, not for {getattr(kind, '__name__', kind)}")
    given = [name for name in REFUSED if options.get(name)]
    if given:
        raise ValueError(f"its update is not known with {given[0]}=True")
    return UPDATES[kind]


def _fitted(rate: Tensor, parameter: Tensor) -> Tensor:
    """Return a rate `()` as it is, which widens nothing it multiplies; rates `(R,)` as the parameter `(R, ...)` is."""
    return rate if rate.dim() == 0 else rate.to(parameter).view(-1, *[1] * (parameter.dim() - 1))


def _sgd(
    parameter: Tensor,
    gradient: Tensor,
    state: tuple[Tensor, ...],
    lr: Tensor,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
) -> None:
    """`torch.optim.SGD`, one parameter."""
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    if momentum:
        (buffer,) = state
        buffer.mul_(momentum).add_(gradient, alpha=1 - dampening)
        gradient = gradient + momentum * buffer if nesterov else buffer
    parameter.sub_(_fitted(lr, parameter) * gradient)


def _adamw(
    parameter: Tensor,
    gradient: Tensor,
    state: tuple[Tensor, ...],
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """`torch.optim.AdamW`, one parameter. Loshchilov & Hutter 2019, arXiv 1711.05101."""
    average, square, step = state
    step.add_(1)
    parameter.mul_(_fitted(1 - lr * weight_decay, parameter))
    average.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    taken = step.double()  # 1 - 0.999 in float32 has three digits less
    rate = _fitted(lr / (1 - betas[0] ** taken), parameter)
    parameter.sub_(rate * average / (square.sqrt() / (1 - betas[1] ** taken).sqrt() + eps))


UPDATES: dict[type[Optimizer], Update] = {
    SGD: Update(_sgd, ("momentum", "dampening", "weight_decay", "nesterov"), ("momentum_buffer",)),
    AdamW: Update(_adamw, ("betas", "eps", "weight_decay"), ("exp_avg", "exp_avg_sq", "step")),
}
