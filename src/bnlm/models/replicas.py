"""Several copies of one network as one module: their parameters are stacked, their computations batched."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Replicas(nn.Module):
    """`R` networks of the same architecture, each with weights, buffers and minibatches of its own.

    Parameters and buffers are those of the first network with a dimension in front: `(R, ...)`. A small network is
    limited by the calls of a step, not by its arithmetic, and one batched call serves all. Nothing passes from one to
    another, so each learns what it would learn alone (up to the rounding of batched products), as long as the optimizer
    treats elements one by one.

    Args:
        models: The networks; the first is taken over, the others are copied.
    Raises:
        ValueError: If the models differ in the names or shapes of their tensors.
    """

    #: Tells the doctor that the first dimension of every parameter counts networks.
    stacks_networks = True

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.replicas = len(models)
        self.network = models[0]
        every = [{name: t.shape for name, t in m.state_dict(keep_vars=True).items()} for m in models]
        if any(shapes != every[0] for shapes in every):
            raise ValueError("replicas: the models differ in the names or shapes of their tensors.")
        tensors = [dict([*m.named_parameters(), *m.named_buffers()]) for m in models]
        for path, module in self.network.named_modules():
            for held in _tensors(module):
                for name, first in held.items():
                    if first is None:
                        continue
                    key = f"{path}.{name}".lstrip(".")
                    if key not in tensors[0]:  # a tied one, which its first name has stacked
                        held[name] = self._tied(first, tensors[0])
                        continue
                    stacked = torch.stack([each[key].detach() for each in tensors])
                    is_parameter = isinstance(first, nn.Parameter)
                    held[name] = nn.Parameter(stacked, first.requires_grad) if is_parameter else stacked

    def _tied(self, first: Tensor, tensors: dict[str, Tensor]) -> Tensor:
        key = next(key for key, tensor in tensors.items() if tensor is first)
        path, _, name = key.rpartition(".")
        stacked = getattr(self.network.get_submodule(path), name)
        assert isinstance(stacked, Tensor)
        return stacked

    def forward(self, contexts: Tensor) -> Tensor:
        """`(R, N, context)`, or `(N, context)` that all of them see, -> logits `(R, N, vocab_size)`."""
        parameters: dict[str, Tensor] = dict(self.network.named_parameters())
        buffers = dict(self.network.named_buffers())

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], contexts: Tensor) -> Tensor:
            return functional_call(self.network, (parameters, buffers), (contexts,))

        own = 0 if contexts.dim() == 3 else None
        logits: Tensor = torch.vmap(one, in_dims=(0, 0, own), randomness="different")(parameters, buffers, contexts)
        return logits

    def loss_of(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return each one's mean cross-entropy `(R,)` of logits `(R, N, vocab_size)` and targets `(R, N)`."""
        each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return each.view(targets.shape).mean(dim=1)

    @torch.no_grad()
    def replica(self, index: int) -> nn.Module:
        """Return network `index` by itself, a copy, in the same mode."""
        one = copy.deepcopy(self.network)
        taken: dict[int, Tensor] = {}  # a tied tensor is met twice
        for module in one.modules():
            for held in _tensors(module):
                for name, stacked in held.items():
                    if stacked is None:
                        continue
                    if id(stacked) not in taken:
                        own = stacked[index].clone()
                        is_parameter = isinstance(stacked, nn.Parameter)
                        taken[id(stacked)] = nn.Parameter(own, stacked.requires_grad) if is_parameter else own
                    held[name] = taken[id(stacked)]
        return one

    def extra_repr(self) -> str:
        return f"replicas={self.replicas}"


def _tensors(module: nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what holds the module's own parameters and buffers, to be changed in place."""
    return module._parameters, module._buffers


def networks_of(model: nn.Module) -> list[nn.Module]:
    """Return the model; of `Replicas`, each network by itself (a copy)."""
    return [model.replica(i) for i in range(model.replicas)] if isinstance(model, Replicas) else [model]


def first_of(model: nn.Module) -> nn.Module:
    """Return the model; of `Replicas`, the first network by itself (a copy)."""
    return model.replica(0) if isinstance(model, Replicas) else model
