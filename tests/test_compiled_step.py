"""Compiled steps equal eager ones, and what cannot be compiled is trained eagerly after one warning."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm import compiled_step, graph_passes, language_model
from bnlm.callbacks import ActivationMonitor, UpdateMonitor
from bnlm.clipping import clipped
from bnlm.compiled_step import CannotCompileError, CompiledStep
from bnlm.data import IGNORED
from bnlm.language_model import LanguageModel
from bnlm.metrics import loss_of
from bnlm.models import MLP, BagOfWords, Recurrent, Replicas, Transformer
from bnlm.normalization import BatchNorm, BatchRenorm, GhostBatchNorm
from bnlm.replica_rates import rates_of, with_rates

# Lightning's, of the small runs below; none of torch's compiler and none of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
]


def batches(steps: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(11, (steps, 16, 3), generator=generator), torch.randint(11, (steps, 16), generator=generator)


def network() -> MLP:
    torch.manual_seed(0)
    return MLP(11, 3, 5, [20, 15], normalization=BatchNorm)


def one_step(step: CompiledStep, x: Tensor, y: Tensor) -> Tensor:
    (loss,) = step(x[None], y[None], [rates_of(step.optimizer)])
    return loss


def eager_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    clip: dict[str, Any],
    loss_of: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Tensor:
    loss = loss_of(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    if clip.get("clip_algorithm") == "value":
        nn.utils.clip_grad_value_(model.parameters(), clip["clip_val"])
    elif clip:
        nn.utils.clip_grad_norm_(model.parameters(), clip["clip_val"])
    optimizer.step()
    return loss.detach()


@pytest.mark.parametrize(
    ("make", "clip"),
    [
        (partial(torch.optim.SGD, lr=0.1), {}),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True), {"clip_val": 0.5}),
        (
            partial(torch.optim.SGD, lr=0.1, momentum=0.8, dampening=0.1),
            {"clip_val": 0.01, "clip_algorithm": "value"},
        ),
        (partial(torch.optim.AdamW, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1, fused=True), {}),
    ],
    ids=["sgd", "sgd-momentum-norm", "sgd-dampening-value", "adamw"],
)
def test_equals_eager_steps_over_500(make: Any, clip: dict[str, Any]) -> None:
    eager, ours = network(), network()
    their_optimizer, optimizer = make(eager.parameters()), make(ours.parameters())
    schedules = [torch.optim.lr_scheduler.StepLR(o, 100, 0.5) for o in (their_optimizer, optimizer)]
    step = CompiledStep(ours, F.cross_entropy, optimizer, **clip)
    theirs: list[Tensor] = []
    found: list[Tensor] = []
    for index, (x, y) in enumerate(zip(*batches(500), strict=True)):
        theirs.append(eager_step(eager, their_optimizer, x, y, clip))
        if index % 50 == 1:
            assert step.ready
            step.begin(x, y)
        found.append(one_step(step, x, y) if index % 50 else eager_step(ours, optimizer, x, y, clip))
        for schedule in schedules:
            schedule.step()
    assert_close(torch.stack(found), torch.stack(theirs), rtol=0, atol=1e-4)
    assert int(ours.blocks[0].normalization.num_batches_tracked) == 500
    for (name, a), b in zip(ours.named_buffers(), eager.buffers(), strict=True):
        assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("normalization", [BatchNorm, partial(BatchRenorm, warmup_steps=20)], ids=["batch", "renorm"])
@pytest.mark.parametrize(
    "make",
    [partial(torch.optim.SGD, lr=0.05, momentum=0.9), partial(torch.optim.AdamW, lr=3e-3, betas=(0.9, 0.999))],
    ids=["sgd", "adamw"],
)
def test_equals_eager_steps_in_float64(make: Any, normalization: Any) -> None:
    """To 1e-9, so that nothing of a step is counted in less; `BatchRenorm`'s limits grow within these steps."""
    torch.manual_seed(0)
    eager = MLP(11, 3, 5, [20, 15], normalization=normalization).double()
    ours = copy.deepcopy(eager)
    their_optimizer, optimizer = make(eager.parameters()), make(ours.parameters())
    step = CompiledStep(ours, F.cross_entropy, optimizer, clip_val=0.5)
    for index, (x, y) in enumerate(zip(*batches(100), strict=True)):
        expected = eager_step(eager, their_optimizer, x, y, {"clip_val": 0.5})
        if index == 1:
            step.begin(x, y)
        loss = one_step(step, x, y) if index else eager_step(ours, optimizer, x, y, {"clip_val": 0.5})
        assert_close(loss, expected, rtol=0, atol=1e-9, msg=f"step {index}: {loss} and {expected}")


def words(steps: int) -> tuple[Tensor, Tensor]:
    """Minibatches of 8 padded words of up to 3 characters, and so of ever another number of positions."""
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(4, (steps, 8, 1), generator=generator)
    places = torch.arange(4)
    ids = torch.randint(1, 11, (steps, 8, 4), generator=generator)
    inputs = ids * ((places >= 1) & (places <= lengths))
    targets = ids.roll(-1, dims=2) * (places < lengths)  # 0, the end mark, behind the last character
    return inputs, targets.masked_fill(places > lengths, IGNORED)


BATCH = partial(BatchNorm, channel_dim=-1)
SEQUENCE_MODELS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: Recurrent(11, 4, "gru", 4, 6, normalization=partial(BATCH, unbiased=True)),
    "transformer": lambda: Transformer(11, 4, 1, 2, 6, normalization=BATCH),
}


@pytest.mark.parametrize("model", SEQUENCE_MODELS)
def test_sequence_models_equal_eager_steps_in_float64(model: str) -> None:
    """To 1e-9, running statistics included, with one compilation for words of all lengths."""
    torch.manual_seed(0)
    eager = SEQUENCE_MODELS[model]().double()
    ours = copy.deepcopy(eager)
    their_optimizer, optimizer = (torch.optim.SGD(network.parameters(), lr=0.1) for network in (eager, ours))
    step = CompiledStep(ours, loss_of, optimizer)
    inputs, targets = words(60)
    assert len(targets.ne(IGNORED).sum(dim=(1, 2)).unique()) > 10
    for index, (x, y) in enumerate(zip(inputs, targets, strict=True)):
        expected = eager_step(eager, their_optimizer, x, y, {}, loss_of)
        if index % 20 == 1:
            step.begin(x, y)
        loss = one_step(step, x, y) if index % 20 else eager_step(ours, optimizer, x, y, {}, loss_of)
        assert_close(loss, expected, rtol=0, atol=1e-9, msg=f"step {index}: {loss} and {expected}")
    assert len(step._compiled) == 1
    for (name, a), b in zip(ours.named_buffers(), eager.buffers(), strict=True):
        assert_close(a, b, rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize("model", SEQUENCE_MODELS)
def test_sequence_models_equal_eager_steps_over_500(model: str) -> None:
    """In float32, where a compiled tanh is another function than an eager one."""
    torch.manual_seed(0)
    eager = SEQUENCE_MODELS[model]()
    ours = copy.deepcopy(eager)
    their_optimizer, optimizer = (torch.optim.SGD(network.parameters(), lr=0.1) for network in (eager, ours))
    inputs, targets = words(501)
    expected = [eager_step(eager, their_optimizer, x, y, {}, loss_of) for x, y in zip(inputs, targets, strict=True)]
    first = eager_step(ours, optimizer, inputs[0], targets[0], {}, loss_of)
    step = CompiledStep(ours, loss_of, optimizer)
    step.begin(inputs[1], targets[1])
    found = step(inputs[1:], targets[1:], 500 * [[0.1]])
    assert_close(torch.cat([first[None], found]), torch.stack(expected), rtol=0, atol=1e-4)


class Data(torch.utils.data.IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, chunks: int, drawn: Callable[[int], tuple[Tensor, Tensor]] = batches) -> None:
        self.chunks = chunks
        self.drawn = drawn

    def __iter__(self) -> Any:
        inputs, targets = self.drawn(10 * self.chunks)
        return iter(zip(inputs.split(10), targets.split(10), strict=True))


def fit(module: LanguageModel, callbacks: list[Any] | None = None, data: Data | None = None) -> Trainer:
    trainer = Trainer(
        accelerator="cpu", max_steps=50, logger=False, callbacks=callbacks or [], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(data or Data(5), batch_size=None))
    return trainer


@pytest.mark.parametrize(
    ("make", "clip"),
    [
        (partial(torch.optim.SGD, lr=0.05), {}),
        (partial(torch.optim.SGD, lr=0.05, momentum=0.9), {"clip_val": 0.3}),
        (partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.1), {}),
    ],
    ids=["sgd", "sgd-clipped", "adamw"],
)
@pytest.mark.parametrize("chunk", [2, 4, 16])
def test_replicas_computed_in_chunks_are_the_networks_alone(
    monkeypatch: pytest.MonkeyPatch, make: Any, clip: dict[str, Any], chunk: int
) -> None:
    """To 1e-9 in float64; eager steps in between, of which AdamW's count has to be known to every chunk."""
    monkeypatch.setattr(compiled_step, "CHUNK", chunk)
    alone = [MLP(11, 3, 5, [20, 15], normalization=BatchNorm).double() for _ in range(4)]
    together = Replicas(copy.deepcopy(alone))
    optimizers, optimizer = [make(network.parameters()) for network in alone], make(together.parameters())
    step = CompiledStep(together, together.loss_of, optimizer, **clip)
    generator = torch.Generator().manual_seed(2)
    for index in range(40):
        x, y = (torch.randint(11, shape, generator=generator) for shape in ((4, 16, 3), (4, 16)))
        each = zip(alone, optimizers, x, y, strict=True)
        expected = torch.stack([eager_step(network, o, a, b, clip) for network, o, a, b in each])
        if index % 10:
            if index % 10 == 1:
                step.begin(x, y)
            found = one_step(step, x, y)
        else:
            losses = together.loss_of(together(x), y)
            gradients = torch.autograd.grad(losses.sum(), list(together.parameters()))
            kept = clipped(gradients, clip["clip_val"], "norm", 4) if clip else gradients
            for parameter, gradient in zip(together.parameters(), kept, strict=True):
                parameter.grad = gradient
            optimizer.step()
            found = losses.detach()
        assert_close(found, expected, rtol=0, atol=1e-9)
    for index, network in enumerate(alone):
        for (name, a), b in zip(
            network.state_dict().items(), together.replica(index).state_dict().values(), strict=True
        ):
            assert_close(b, a, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("make", "each"),
    [(partial(torch.optim.SGD, lr=0.1), False), (partial(torch.optim.AdamW, lr=3e-3), True)],
    ids=["sgd, one rate", "adamw, a rate for each"],
)
def test_several_steps_at_once_are_those_one_by_one(monkeypatch: pytest.MonkeyPatch, make: Any, each: bool) -> None:
    """With another rate at each step, and of replicas chunk by chunk, each for all steps before the next.

    SGD's steps of the three weights are taken within their gradients' products.
    """
    fuse, fused = graph_passes.fuse_product_updates, []
    monkeypatch.setattr(graph_passes, "fuse_product_updates", lambda graph: fused.append(fuse(graph)))
    monkeypatch.setattr(compiled_step, "CHUNK", 2)
    start = Replicas([MLP(11, 3, 5, [20, 15], normalization=BatchNorm).double() for _ in range(4)])
    generator = torch.Generator().manual_seed(2)
    xs, ys = (torch.randint(11, (8, *shape), generator=generator) for shape in ((4, 16, 3), (4, 16)))
    weights: list[list[Tensor]] = []
    losses: list[Tensor] = []
    for at_once in (1, 7):
        model = copy.deepcopy(start)
        optimizer = (with_rates(make, [0.1, 0.02, 0.05, 0.01]) if each else make)(model.parameters())
        eager_step(model, optimizer, xs[0], ys[0], {}, lambda *given: start.loss_of(*given).sum())
        step = CompiledStep(model, model.loss_of, optimizer)
        rates = [[rate / (1 + index) for rate in rates_of(optimizer)] for index in range(7)]
        step.begin(xs[0], ys[0])
        parts = [slice(i, i + at_once) for i in range(0, 7, at_once)]
        losses.append(torch.cat([step(xs[1:][part], ys[1:][part], rates[part]) for part in parts]))
        weights.append([p.detach() for p in model.parameters()])
    assert fused == 2 * [0 if each else 3]
    assert losses[0].shape == (7, 4)
    assert_close(losses[1], losses[0], rtol=0, atol=1e-12)
    assert_close(weights[1], weights[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_run_is_the_same_with_eager_observed_steps_in_between(
    momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    call = CompiledStep.__call__
    monkeypatch.setattr(CompiledStep, "__call__", lambda *args: (taken.append(len(args[1])), call(*args))[1])
    make = partial(torch.optim.SGD, lr=0.1, momentum=momentum)
    modules = [LanguageModel(network(), 11, make, compile=on) for on in (False, True)]
    trainers = [fit(m, [ActivationMonitor(every_n_steps=20), UpdateMonitor(every_n_steps=20)]) for m in modules]
    assert sum(taken) == 50 - 3  # the monitor observes the steps 0, 20 and 40
    assert [trainer.global_step for trainer in trainers] == [50, 50]
    for a, b in zip(modules[0].model.parameters(), modules[1].model.parameters(), strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("limit", "expected"), [(50, True), (51, False)])
def test_auto_compiles_long_runs(
    limit: int, expected: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(language_model, "COMPILE_FROM", limit)
    taken: list[int] = []
    call = CompiledStep.__call__
    monkeypatch.setattr(CompiledStep, "__call__", lambda *args: (taken.append(len(args[1])), call(*args))[1])
    with caplog.at_level(logging.WARNING, "bnlm"):
        fit(LanguageModel(network(), 11, partial(torch.optim.SGD, lr=0.1), compile="auto"))  # of 50 steps
    assert bool(taken) == expected
    assert not [r for r in caplog.records if r.name == "bnlm"]


def test_what_cannot_be_traced_is_trained_eagerly_after_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(11, 11)

        def forward(self, idx: Tensor) -> Tensor:
            x = self.embedding(idx)[:, -1]
            return x * 2 if x.sum().item() > 0 else x  # a decision that depends on the data

    with caplog.at_level(logging.WARNING, "bnlm"):
        trainer = fit(LanguageModel(Counting(), 11, partial(torch.optim.SGD, lr=0.1), compile=True))
    assert trainer.global_step == 50
    assert next(r.message for r in caplog.records if r.name == "bnlm").startswith("compile=True: ")
    assert sum(r.name == "bnlm" for r in caplog.records) == 1


def test_parts_of_as_many_rows_as_the_words_have_are_trained_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    """`GhostBatchNorm` cuts a batch into a number of parts that depends on the data: it has no one graph."""
    ghost = partial(GhostBatchNorm, ghost_size=4, channel_dim=-1)
    module = LanguageModel(BagOfWords(11, 4, 6, 7, normalization=ghost), 11, torch.optim.AdamW, compile=True)
    with caplog.at_level(logging.WARNING, "bnlm"):
        trainer = fit(module, data=Data(5, words))
    assert trainer.global_step == 50
    (warning,) = [r.message for r in caplog.records if r.name == "bnlm"]
    assert warning.endswith("the run goes on eagerly.")


def test_without_a_compiler_there_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch._inductor, "compile", missing)
    with caplog.at_level(logging.WARNING, "bnlm"):
        fit(LanguageModel(network(), 11, partial(torch.optim.SGD, lr=0.1), compile=True))
    assert [r.message for r in caplog.records if r.name == "bnlm"] == [
        "compile=True: No working C++ compiler found; the run goes on eagerly."
    ]


def test_who_hears_every_step_has_eager_steps(caplog: pytest.LogCaptureFixture) -> None:
    class Listener(Callback):
        heard = 0

        def on_before_optimizer_step(self, *args: Any) -> None:
            self.heard += 1

    listener = Listener()
    with caplog.at_level(logging.WARNING, "bnlm"):
        fit(LanguageModel(network(), 11, partial(torch.optim.SGD, lr=0.1), compile=True), [listener])
    assert listener.heard == 50
    assert next(r.message for r in caplog.records if r.name == "bnlm").startswith("compile=True: a callback")


def test_other_optimizers_are_refused() -> None:
    model = copy.deepcopy(network())
    with pytest.raises(CannotCompileError, match="known for SGD and AdamW, not for Adagrad"):
        CompiledStep(model, F.cross_entropy, torch.optim.Adagrad(model.parameters()))
    with pytest.raises(CannotCompileError, match="amsgrad=True"):
        CompiledStep(model, F.cross_entropy, torch.optim.AdamW(model.parameters(), amsgrad=True))


def test_the_next_process_takes_what_is_compiled_from_the_disk(tmp_path: Path) -> None:
    code = """
import sys, torch
import torch.nn.functional as F
from bnlm.compiled_step import CompiledStep
from bnlm.models import MLP, Replicas
from torch._dynamo.utils import counters
torch.manual_seed(0)
model = Replicas([MLP(5, 2, 3, [4]) for _ in range(2)])
step = CompiledStep(model, model.loss_of, torch.optim.SGD(model.parameters(), lr=0.1))
x, y = torch.randint(5, (2, 4, 2)), torch.randint(5, (2, 4))
step.begin(x, y)
print(step(x.expand(3, 2, 4, 2), y.expand(3, 2, 4), 3 * [[0.1]]).tolist(), counters["inductor"]["fxgraph_cache_hit"])
"""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    said = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        said.append(done.stdout.strip().rpartition(" "))
    assert [hits for *_, hits in said] == ["0", "1"]
    assert said[0][0] == said[1][0]
