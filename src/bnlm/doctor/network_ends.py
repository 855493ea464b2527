"""Where one network ends and another begins, of several in one module: an actor and a critic, a generator and so on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from torch import nn
from torch.optim import Optimizer


def network_ends(layers: Sequence[tuple[str, nn.Module]], optimizers: Sequence[Optimizer] = ()) -> list[nn.Module]:
    """Return the layers that are the last of their network and not of all.

    Args:
        layers: Linear layers and convolutions with their module paths, in the order in which they are registered.
        optimizers: Those that train them: of two networks each has its own, or one has both.
    """
    holders = {id(p): i for i, each in enumerate(optimizers) for group in each.param_groups for p in group["params"]}
    held = Counter(holders.get(id(layer.weight)) for _, layer in layers)
    ends = []
    for (path, layer), (next_path, following) in pairwise(layers):
        holder, next_holder = holders.get(id(layer.weight)), holders.get(id(following.weight))
        others = holder is not None and next_holder is not None and holder != next_holder
        # An optimizer for each weight, or for those of one kind, says nothing of networks.
        if others and len(optimizers) <= 4 and min(held[holder], held[next_holder]) >= 2:
            ends.append(layer)
        elif isinstance(layer, nn.Linear) and isinstance(following, nn.Linear):
            of_both = _branches(path, next_path, layers)
            if of_both and _begins_anew(of_both[0], following):
                ends.append(layer)
    return ends


def _branches(path: str, next_path: str, layers: Sequence[tuple[str, nn.Module]]) -> list[list[nn.Module]]:
    """Return the layers of the two submodules in which two paths part; nothing unless each has several."""
    parts, next_parts = path.split("."), next_path.split(".")
    common = next((i for i, (a, b) in enumerate(zip(parts, next_parts, strict=False)) if a != b), 0)
    found = []
    for of in (parts, next_parts):
        branch = ".".join(of[: common + 1]) + "."
        found.append([layer for name, layer in layers if name.startswith(branch)])
    return found if all(len(branch) >= 2 for branch in found) else []


def _begins_anew(network: Sequence[nn.Module], following: nn.Linear) -> bool:
    """Return whether a layer cannot read what a network returns, but what it reads itself, alone or beside that."""
    first, last = network[0], network[-1]
    if not isinstance(first, nn.Linear) or not isinstance(last, nn.Linear):
        return False
    reads = (first.in_features, first.in_features + last.out_features)
    return following.in_features != last.out_features and following.in_features in reads
