"""Forward, backward and update of one minibatch as one compiled function."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

from bnlm.clipping import clipped
from bnlm.normalization.batch_norm_formula import written_out
from bnlm.optimizer_updates import update_of
from bnlm.rational_tanh import rational_tanh
from bnlm.replica_rates import RatePerReplica

#: Replicas that are computed together, several steps of them before the next: more would not stay in a core's caches.
CHUNK = 8
#: Of inductor: `begin` looks at the tensors' layout, so that each call need not; and the weights' gradients are not
#: taken last, long after what they are made of.
OPTIONS_ANYWHERE = {"size_asserts": False, "reorder_for_locality": False}
#: Of a step on the CPU the calls come from C++, which costs a small network less than Python (on a GPU that would want
#: more than a compiler for the host); and a product and a sum may be one instruction.
OPTIONS_ON_CPU = {"cpp_wrapper": True, "cpp.enable_floating_point_contract_flag": "fast"}
LossOf = Callable[[Tensor, Tensor], Tensor]


class CannotCompileError(RuntimeError):
    """Raised for an optimizer whose update is not written here."""


class CompiledStep:
    """Optimizer steps on the tensors that the model and the optimizer hold, as eager steps would take them.

    The step is traced once, with its backward pass and its update, to a graph of plain tensor operations; inductor, the
    compiler of `torch.compile`, makes code of it that writes to parameters, buffers and optimizer state in place. Eager
    steps can be taken in between, and checkpoints are the same.

    Args:
        model: What is trained; its parameters are all in the optimizer's first group.
        loss_of: Maps the model's outputs and the targets to a loss `()`; of replicas, to the loss of each `(R,)`.
        optimizer: SGD or AdamW of torch.optim, or one with a rate for each replica (`RatePerReplica`).
        clip_val: Gradients are clipped to this; None for no clipping.
        clip_algorithm: `norm` (over all parameters) or `value` (each element).
    Raises:
        CannotCompileError: If the optimizer is another, or has options that the compiled update does not know.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: LossOf,
        optimizer: Optimizer,
        clip_val: float | None = None,
        clip_algorithm: str = "norm",
    ) -> None:
        kind = optimizer.kind if isinstance(optimizer, RatePerReplica) else type(optimizer)
        several = kind is not type(optimizer)
        if len(optimizer.param_groups) != 1 and not several:
            raise CannotCompileError(f"the optimizer has {len(optimizer.param_groups)} groups of parameters, not one")
        try:
            self._update = update_of(kind, optimizer.param_groups[0])
        except ValueError as error:
            raise CannotCompileError(str(error)) from error
        self.model = model
        self.loss_of = loss_of
        self.optimizer = optimizer
        self.clip_val = clip_val
        self.clip_algorithm = clip_algorithm
        self._compiled: dict[Any, Callable[..., Tensor]] = {}
        self._replicas: int = getattr(model, "replicas", 1)
        self._chunk = _chunk_of(self._replicas)
        self._several_rates = several
        self._held: list[list[Tensor]] = []  # of each chunk
        self._run: Callable[..., Tensor] | None = None
        self.seconds = 0.0  # spent on compiling

    @property
    def ready(self) -> bool:
        """Whether the optimizer has the state that its first step, an eager one, makes."""
        names = self._state_names()
        state = self.optimizer.state
        return not names or all(names[0] in state.get(p, {}) for p in self._parameters())

    def begin(self, contexts: Tensor, targets: Tensor) -> None:
        """Get ready for minibatches like this one; compiles where none was like it before.

        To be called again whenever something else may have replaced tensors of the optimizer's state or its options.
        """
        parameters, buffers = self._parameters(), list(self.model.buffers())
        states = [[self.optimizer.state[p][name] for p in parameters] for name in self._state_names()]
        held = [t.detach() for t in (*parameters, *buffers, *(t for each in states for t in each))]
        self._held = [[self._part(t, start) for t in held] for start in range(0, self._replicas, self._chunk)]
        contexts, targets = self._part(contexts, 0), self._part(targets, 0)
        group = self.optimizer.param_groups[0]
        constants = {name: group[name] for name in self._update.constants}
        layout = tuple((t.shape, t.stride(), t.dtype, t.device) for t in (contexts, targets, *self._held[0]))
        key = (layout, tuple(constants.values()))
        if key not in self._compiled:
            started = time.perf_counter()
            self._compiled[key] = self._compile(contexts, targets, constants)
            self.seconds += time.perf_counter() - started
        self._run = self._compiled[key]

    @torch.no_grad()
    def __call__(self, contexts: Tensor, targets: Tensor, rates: Sequence[Sequence[float]]) -> Tensor:
        """Take steps, each with the learning rates that `rates_of` gave for it.

        Args:
            contexts, targets: A minibatch for each step; of replicas, with one for each.
            rates: Of each step.
        Returns:
            `(steps,)`, the loss before each step; of replicas `(steps, R)`.
        """
        assert self._run is not None, "begin() comes first"
        lr = torch.tensor(rates, dtype=torch.float64)
        lr = lr if self._several_rates else lr[:, 0]
        losses = []
        for start, held in zip(range(0, self._replicas, self._chunk), self._held, strict=True):
            parts = (self._part(each, start, dim=1) for each in (contexts, targets, lr))
            steps = zip(*(each.unbind() for each in parts), strict=True)
            losses.append(torch.stack([self._run(*given, *held) for given in steps]))
        return losses[0] if len(losses) == 1 else torch.cat(losses, dim=1)

    def _part(self, tensor: Tensor, start: int, dim: int = 0) -> Tensor:
        """Return what the chunk of the replicas that begins with `start` has of a tensor that counts them in `dim`."""
        if self._chunk == self._replicas:
            return tensor
        if tensor.dim() == 0:  # AdamW's count of steps, which all share: each chunk counts for itself
            return tensor.clone() if start else tensor
        return tensor.narrow(dim, start, self._chunk) if tensor.dim() > dim else tensor

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def _state_names(self) -> tuple[str, ...]:
        return self._update.state_names(self.optimizer.param_groups[0])

    def _compile(self, contexts: Tensor, targets: Tensor, constants: dict[str, Any]) -> Callable[..., Tensor]:
        import torch._inductor  # both take their time, which eager runs need not pay
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.proxy_tensor import make_fx
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        from bnlm.graph_passes import compute_roots_once, fuse_product_updates

        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        buffer_names = [name for name, _ in self.model.named_buffers()]
        n, m = len(names), len(buffer_names)
        update = self._update.function

        def step(x: Tensor, y: Tensor, lr: Tensor, *held: Tensor) -> Tensor:
            parameters, buffers, state = held[:n], held[n : n + m], held[n + m :]
            with torch.enable_grad():
                leaves = [p.detach().requires_grad_() for p in parameters]
                own = dict(zip(names, leaves, strict=True)) | dict(zip(buffer_names, buffers, strict=True))
                loss = self.loss_of(functional_call(self.model, own, (x,)), y)
                gradients: Sequence[Tensor] = torch.autograd.grad(loss.sum(), leaves)
            if self.clip_val is not None:
                gradients = clipped(gradients, self.clip_val, self.clip_algorithm, self._chunk)
            for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                update(parameter, gradient, state[index::n], lr, **constants)
            return loss.detach()

        # Fake tensors: the trace computes nothing, and changes nothing. Their mode knows sizes that depend on the data,
        # such as how many positions the words of a batch have, as symbols: one function for all of them. With
        # such a mode inductor also looks for what an earlier run has compiled: without one it compiles each time anew.
        mode = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True)
        lr = torch.zeros((self._chunk,) if self._several_rates else (), dtype=torch.float64)
        inputs: list[Any] = [mode.from_tensor(t) for t in (contexts, targets, lr, *self._held[0])]
        with torch.no_grad(), written_out() if self._replicas > 1 else nullcontext():
            table = {torch.ops.aten.tanh.default: rational_tanh}
            graph = make_fx(step, decomposition_table=table, tracing_mode="fake")(*inputs)
        if self._replicas > 1:
            compute_roots_once(graph)
            fuse_product_updates(graph)
        options = OPTIONS_ANYWHERE | (OPTIONS_ON_CPU if contexts.device.type == "cpu" else {})
        # Inductor itself rather than torch.compile, which would look at the graph's sixty tensors before every call, to
        # see whether they are still as they were: `begin` knows, and a fifth of a step is saved.
        compiled: Callable[..., Tensor] = torch._inductor.compile(graph, inputs, options)
        return compiled


def _chunk_of(replicas: int) -> int:
    """Return into how large parts, all of the same size, the replicas are cut."""
    largest = max(size for size in range(1, min(CHUNK, replicas) + 1) if replicas % size == 0)
    return largest if 2 * largest > CHUNK else replicas
