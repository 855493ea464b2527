"""What the rules have to know of a network before it runs: roles of its parameters, who feeds a normalization."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from bnlm.doctor.drawn_weights import fresh_and_frozen, is_fresh
from bnlm.doctor.network_ends import network_ends
from bnlm.doctor.unregistered import unregistered_parameters
from bnlm.doctor.weight_decay import groups_of
from bnlm.init.layers import is_normalization
from bnlm.probe.names import plain

#: What a normalization that somebody wrote is called, or ends with: RMSNorm, BatchNorm1d.
_NORM = re.compile(r"norm(\dd)?$", re.IGNORECASE)
_CENTRING = (_BatchNorm, _InstanceNorm)
#: By torch's name of the function, normalizations that subtract the mean of each unit.
_CENTRES = {"batch_norm": "BatchNorm", "instance_norm": "InstanceNorm"}
#: R19: std of a bias's gradient over the weight's that is rounding, and above which it is none at any precision.
NOTHING_LEFT, FELT = 1e-4, 3e-2


@dataclass
class ParameterFacts:
    """A trainable parameter: `role` is hidden, output, embedding or vector (biases, gains of normalizations).

    `group` is the optimizers' parameter group that holds it, see `weight_decay.groups_of`; None where none is known.
    `lr` is that group's learning rate, before any schedule; `own` whether it is of no layer of torch's; `fresh` whether
    it is as torch draws a weight.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    feeds_norm: bool = False
    std: float = float("nan")
    zero: bool = False
    collinear_rows: float = 0.0
    group: int | None = None
    lr: float = 0.0
    own: bool = False
    fresh: bool = False

    @property
    def fan_in(self) -> int:
        """Inputs of a unit; 0 where which of several dimensions these are is its author's matter."""
        return 0 if self.own and len(self.shape) > 2 else math.prod(self.shape[1:])


@dataclass
class Facts:
    """A network as it stands before training.

    Attributes:
        parameters: By name, those that require a gradient.
        not_optimized: By name, those that no optimizer holds; none where nothing is known of optimizers.
        unregistered: What is in plain lists or no parameter, so that torch does not know of it, and in no optimizer.
        left: By identity of these two, the gradient it has from before the training, and which version of that it is.
        batch_norms: By module path: momentum, None for a cumulative average.
        redundant_biases: Module path of a layer whose bias the normalization after it removes -> what that is.
        weight_of: Module path of an activation -> name of the weight that feeds it.
        ends: Names of the weights that are the last of their network, where another follows.
        network_of: Module path of an activation -> how many networks have ended before.
        lazy: Whether some parameters have no shape before the first forward, and are left out here.
        frozen: Whether some parameters are not to be trained.
        fresh: Of these, by name, the weights that are as torch draws them: nobody has trained them before. Without
            copies of what is trained: a target network's.
        fresh_share: Share of all elements that these have.
        weight_decay: The largest of the optimizers' parameter groups.
        decay_rescaled: Whether an optimizer adds it to the gradient and then rescales both: what it takes is not known.
        rescales: Whether an optimizer takes steps of the same size whatever the scale of the gradient, as Adam does.
        momentum: The largest of the optimizers' parameter groups, of those that add gradients up undamped.
        eps: The largest of the optimizers' parameter groups, which Adam and others divide by; not of Adafactor, whose
            two are others.
        spread_thin: How much smaller transposed convolutions that are no output start than layers that are not: torch
            draws their weights as if each input reached one output.
        clamps: Module path of an activation that clamps -> whether it does so on both sides of zero: a relu6 is flat at
            zero, rightly.
    """

    parameters: dict[str, ParameterFacts] = field(default_factory=dict)
    not_optimized: dict[str, nn.Parameter] = field(default_factory=dict)
    unregistered: dict[str, Tensor] = field(default_factory=dict)
    left: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    batch_norms: dict[str, float | None] = field(default_factory=dict)
    redundant_biases: dict[str, str] = field(default_factory=dict)
    weight_of: dict[str, str] = field(default_factory=dict)
    ends: set[str] = field(default_factory=set)
    network_of: dict[str, int] = field(default_factory=dict)
    lazy: bool = False
    frozen: bool = False
    fresh: list[str] = field(default_factory=list)
    fresh_share: float = 0.0
    weight_decay: float = 0.0
    decay_rescaled: bool = False
    rescales: bool = False
    momentum: float = 0.0
    eps: float = 0.0
    spread_thin: float = 1.0
    clamps: dict[str, bool] = field(default_factory=dict)

    def gets_gradient(self, parameter: Tensor) -> bool:
        """Return whether training has brought a gradient to one that no optimizer holds."""
        before, version = self.left.get(id(parameter), (None, 0))
        return parameter.grad is not None and not (parameter.grad is before and before._version == version)

    def take_order(self, normalized: Mapping[str, str], gradients: Mapping[str, float]) -> None:
        """Take in which layers a forward pass normalizes: the modules may be registered in another order.

        A bias before what subtracts the mean is redundant where nothing else takes the layer's output: no more than
        rounding is left of its gradient then.

        Args:
            normalized: By module path of a layer, torch's name of the normalization.
            gradients: Standard deviation by name of a parameter.
        """
        left = {
            path: gradients[f"{path}.bias"] / gradients[f"{path}.weight"]
            for path in (*self.redundant_biases, *normalized)
            if f"{path}.bias" in gradients and gradients.get(f"{path}.weight", 0.0) > 0
        }
        for path in [path for path in self.redundant_biases if left.get(path, 0.0) > FELT]:
            del self.redundant_biases[path]
        for path, norm in normalized.items():
            if (weight := self.parameters.get(f"{path}.weight")) is not None:
                weight.feeds_norm = True
            if norm in _CENTRES and left.get(path, math.inf) < NOTHING_LEFT:
                self.redundant_biases.setdefault(path, _CENTRES[norm])
        in_order = [name.removesuffix(".bias") for name in self.parameters if name.endswith(".bias")]
        self.redundant_biases = {p: self.redundant_biases[p] for p in in_order if p in self.redundant_biases}


@torch.no_grad()
def facts_of(model: nn.Module, optimizers: Sequence[Optimizer] = ()) -> Facts:
    """Look at a model before its first step; of networks that are stacked in one, at the first."""
    facts = Facts()
    stacked = {id(p) for m in model.modules() if getattr(m, "stacks_networks", False) for p in m.parameters()}
    leaves = [
        (plain(path), module)
        for path, module in model.named_modules()
        if not any(True for _ in module.children()) and not isinstance(module, nn.Identity | nn.Dropout)
        if not any(map(is_lazy, module.parameters(recurse=False)))
    ]
    names = {id(p): plain(name) for name, p in model.named_parameters()}
    of_torch = {
        id(p) for _, m in leaves if type(m).__module__.startswith("torch.") for p in m.parameters(recurse=False)
    }
    roles: dict[int, str] = {}
    feeds: set[int] = set()
    weights: list[Tensor] = []
    layers: list[tuple[str, nn.Module]] = []  # of these
    after: dict[str, list[tuple[str, type]]] = {}  # by weight, what is registered between it and the next
    for index, (path, module) in enumerate(leaves):
        following = leaves[index + 1][1] if index + 1 < len(leaves) else None
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            roles[id(weight)] = "embedding"
        elif _normalizes(module):
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                facts.batch_norms[path] = module.momentum
        elif isinstance(module, nn.Linear | _ConvNd) and isinstance(weight, nn.Parameter):
            weights.append(weight)
            layers.append((path, module))
            if following is not None and _normalizes(following):
                feeds.add(id(weight))
                centred = isinstance(following, _CENTRING) and following.num_features == _one(weight, stacked).shape[0]
                if centred and module.bias is not None and module.bias.requires_grad:
                    facts.redundant_biases[path] = (
                        "InstanceNorm" if isinstance(following, _InstanceNorm) else "BatchNorm"
                    )
        elif not list(module.parameters(recurse=False)) and weights and id(weights[-1]) in names:
            after.setdefault(names[id(weights[-1])], []).append((path, type(module)))
    for name, following_it in after.items():
        kinds = [kind for _, kind in following_it]
        if len(set(kinds)) == len(kinds):  # else they are not registered in the order in which they are called
            facts.weight_of |= {path: name for path, _ in following_it}
    facts.clamps = {path: module.min_val < 0 for path, module in leaves if isinstance(module, nn.Hardtanh)}
    if weights and roles.get(id(weights[-1])) is None:
        roles.update(dict.fromkeys(map(id, [weights[-1], *_heads([module for _, module in leaves])]), "output"))
    ends = [id(layer.weight) for layer in network_ends(layers, optimizers)]
    roles.update(dict.fromkeys(ends, "output"))
    facts.ends = {names[end] for end in ends if end in names}
    facts.network_of = _networks(leaves, ends)
    facts.spread_thin = math.prod(
        min(1.0, math.sqrt(m.in_channels / m.out_channels / math.prod(m.stride)))
        for _, m in leaves
        if isinstance(m, _ConvTransposeNd) and m.in_channels and roles.get(id(m.weight)) != "output"
    )
    facts.lazy = any(map(is_lazy, model.parameters()))
    facts.frozen = not all(parameter.requires_grad for parameter in model.parameters())
    facts.fresh, facts.fresh_share = fresh_and_frozen({plain(name): p for name, p in model.named_parameters()})
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not is_lazy(parameter):
            one = _one(parameter, stacked)
            role = roles.get(id(parameter), "hidden") if one.ndim >= 2 and not _is_gain(name) else "vector"
            found = _parameter_facts(plain(name), one, role, id(parameter) in feeds)
            found.own = id(parameter) not in of_torch
            found.fresh = role != "vector" and is_fresh(one)
            facts.parameters[plain(name)] = found
    _forgive_companions(facts.parameters)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    facts.weight_decay = max((float(group.get("weight_decay") or 0.0) for group in groups), default=0.0)
    facts.momentum = max((float(g.get("momentum") or 0.0) for g in groups if not g.get("dampening")), default=0.0)
    eps = [group.get("eps") or 0.0 for group in groups]
    facts.eps = max((float(each) for each in eps if isinstance(each, int | float | Tensor)), default=0.0)
    facts.decay_rescaled = any(not isinstance(o, torch.optim.SGD | torch.optim.AdamW) for o in optimizers)
    facts.rescales = any(not isinstance(optimizer, torch.optim.SGD) for optimizer in optimizers)
    held = groups_of(optimizers)
    if held:
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        for name, parameter in trained:
            if (one_facts := facts.parameters.get(plain(name))) is not None:
                one_facts.group = held.get(id(parameter))
                of_group = {} if one_facts.group is None else groups[one_facts.group]
                one_facts.lr = float(of_group.get("initial_lr") or of_group.get("lr") or 0.0)
        facts.not_optimized = {plain(name): p for name, p in trained if id(p) not in held}
        unregistered = unregistered_parameters(model).items()
        facts.unregistered = {plain(name): p for name, p in unregistered if id(p) not in held}
        outside = [*facts.not_optimized.values(), *facts.unregistered.values()]
        facts.left = {id(p): (p.grad, p.grad._version) for p in outside if p.grad is not None}
    return facts


def _normalizes(module: nn.Module) -> bool:
    return is_normalization(module) or _NORM.search(type(module).__name__) is not None


def _networks(leaves: Sequence[tuple[str, nn.Module]], ends: Sequence[int]) -> dict[str, int]:
    """Return by path of a module without parameters how many networks have ended before; see `network_ends`."""
    before, over, found = 0, False, {}
    for path, module in leaves:
        if not list(module.parameters(recurse=False)):
            found[path] = before
            continue
        before += over
        over = id(getattr(module, "weight", None)) in ends
    return found


def _forgive_companions(parameters: dict[str, ParameterFacts]) -> None:
    """Take nothing amiss in a parameter of a module's own that is constant beside one of its shape that is not.

    Each element of a scale beside a mean has a gradient of its own, as in Blundell et al. 2015 (arXiv 1505.05424).
    """
    drawn = {(one.name.rpartition(".")[0], one.shape) for one in parameters.values() if one.std > 0}
    for one in parameters.values():
        if one.own and one.std == 0 and (one.name.rpartition(".")[0], one.shape) in drawn:
            one.collinear_rows = 0.0


def _heads(leaves: list[nn.Module]) -> list[Tensor]:
    """Return the weights of the last layers, where several read the same units: each of fewer outputs."""
    heads: list[Tensor] = []
    for module in reversed(leaves):
        if not heads and not any(True for _ in module.parameters(recurse=False)):
            continue  # what a loss is made of
        same = not heads or (isinstance(module, nn.Linear) and module.in_features == heads[0].shape[1])
        if not (isinstance(module, nn.Linear) and same and module.out_features < module.in_features):
            break
        heads.append(module.weight)
    return heads


def _is_gain(name: str) -> bool:
    """Return whether this is one of weight_norm's lengths: a number for each row of a matrix, though no vector."""
    return name.endswith((".weight_g", "parametrizations.weight.original0"))


def _one(parameter: Tensor, stacked: set[int]) -> Tensor:
    """Return a parameter; of one that several networks are stacked in, the first network's."""
    return parameter[0] if id(parameter) in stacked else parameter


def _parameter_facts(name: str, parameter: Tensor, role: str, feeds_norm: bool) -> ParameterFacts:
    found = ParameterFacts(name, tuple(parameter.shape), role, feeds_norm)
    parameter = torch.view_as_real(parameter) if parameter.is_complex() else parameter
    if parameter.numel() > 1:
        found.std = float(parameter.float().std())
        if found.std < 1e-6 * float(parameter.abs().max()):
            found.std = 0.0  # what is left of a constant by rounding
    if role in ("hidden", "output"):
        found.zero = not bool(parameter.any())
        rows = parameter.detach().flatten(1)[:256].float()
        # Of few inputs two rows may be alike by chance, and four are not.
        if rows.shape[0] > 1 and rows.shape[1] > (1 if rows.shape[0] >= 4 else 4) and not found.zero:
            unit = nn.functional.normalize(rows, dim=1)
            found.collinear_rows = float(((unit[1:] @ unit[0]).abs() > 0.999).float().mean())
    return found
