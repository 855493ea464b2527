"""Statistics over two processes with unequal batches against one process on the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

EXACT = {"rtol": 1e-10, "atol": 1e-10}
CASES: dict[str, dict[str, Any]] = {
    "biased": {"parts": [(5, 4), (3, 4)]},
    "unbiased": {"parts": [(5, 4), (3, 4)], "unbiased": True},
    "unbiased without eps": {"parts": [(5, 4), (3, 4)], "unbiased": True, "eps": 0.0},
    "images": {"parts": [(3, 4, 2, 3), (1, 4, 2, 3)]},
    "channel last": {"parts": [(3, 5, 4), (1, 5, 4)], "channel_dim": -1},
    "cumulative": {"parts": [(5, 4), (3, 4)], "momentum": None},
    "not affine": {"parts": [(5, 4), (3, 4)], "affine": False},
    "no bias": {"parts": [(5, 4), (3, 4)], "bias": False},
    "not tracking": {"parts": [(5, 4), (3, 4)], "track_running_stats": False},
    "one value each": {"parts": [(1, 4), (1, 4)]},
    "one of them empty": {"parts": [(6, 4), (0, 4)]},
}

SCRIPT = """
import sys
import torch
import torch.distributed as dist
from torch import nn
from bnlm.normalization import BatchNorm

torch.set_num_threads(1)
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
cases = torch.load(f"{folder}/cases.pt")
results = {}
for name, case in cases.items():
    layer = BatchNorm(4, sync=True, dtype=torch.float64, **case["arguments"])
    layer.load_state_dict(case["state"])
    if case["compiled"]:
        layer.compile(fullgraph=True, backend="aot_eager")
    steps = []
    for xs, gs in case["steps"]:
        x, g = xs[rank].requires_grad_(), gs[rank]
        y = layer(x)
        inputs = [x, *layer.parameters()]
        grads = torch.autograd.grad(y, inputs, g, create_graph=not case["compiled"])
        second = ()
        if not case["compiled"]:
            second = torch.autograd.grad((grads[0] * g.roll(1, 0)).sum(), inputs, allow_unused=True)
        state = {key: value.clone() for key, value in layer.state_dict().items()}
        steps.append([y.detach(), [grad.detach() for grad in grads], list(second), state])
    results[name] = steps

# In eval nobody is waited for: the second process does not take part.
layer = BatchNorm(4, sync=True, dtype=torch.float64).eval()
if rank == 0:
    layer(torch.zeros(3, 4, dtype=torch.float64))

# Under autocast, the layer before gives bfloat16; statistics and buffers are float32.
model = nn.Sequential(nn.Linear(3, 4), BatchNorm(4, sync=True))
model.load_state_dict(torch.load(f"{folder}/model.pt"))
with torch.autocast("cpu", dtype=torch.bfloat16):
    half = model(torch.load(f"{folder}/x.pt")[rank])
results["half"] = [half.detach(), dict(model.state_dict())]

# Plain DDP: what each process saves.
for name, sync in (("ddp", False), ("ddp sync", True)):
    layer = BatchNorm(4, sync=sync, dtype=torch.float64)
    ddp = nn.parallel.DistributedDataParallel(layer)
    for xs, gs in cases["biased"]["steps"]:
        (ddp(xs[rank].detach()) * gs[rank]).sum().backward()
    results[name] = [{k: v.clone() for k, v in layer.state_dict().items()}, [p.grad for p in layer.parameters()]]
torch.save(results, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def draw(*shape: int, seed: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 2


def run_two(script: str, folder: Path) -> None:
    """Run `script` as two processes at once; both must succeed."""
    (folder / "worker.py").write_text(script)
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    workers = [
        subprocess.Popen(
            [sys.executable, folder / "worker.py", folder, str(rank)],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        errors = [worker.communicate(timeout=120)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, Any]]:
    """Arguments, initial state and three steps (inputs and gradients of the outputs, per process) of each case."""
    made = {}
    for name, given in CASES.items():
        arguments = {key: value for key, value in given.items() if key != "parts"}
        layer = BatchNorm(4, dtype=torch.float64, **arguments)
        for seed, parameter in enumerate(layer.parameters()):
            parameter.data = draw(4, seed=100 + seed)
        steps = [
            [[draw(*shape, seed=10 * seed + part + i) for i, shape in enumerate(given["parts"])] for part in (0, 5)]
            for seed in range(3)
        ]
        made[name] = {"arguments": arguments, "state": layer.state_dict(), "steps": steps, "compiled": False}
    return made | {"compiled": {**made["unbiased"], "compiled": True}}


@pytest.fixture(scope="module")
def model_and_inputs() -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), BatchNorm(4)), [torch.randn(6, 3), torch.randn(2, 3)]


@pytest.fixture(scope="module")
def both(
    cases: dict[str, Any], model_and_inputs: tuple[nn.Module, list[Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """What each of two processes computed."""
    folder = tmp_path_factory.mktemp("sync")
    torch.save(cases, folder / "cases.pt")
    torch.save(model_and_inputs[0].state_dict(), folder / "model.pt")
    torch.save(model_and_inputs[1], folder / "x.pt")
    run_two(SCRIPT, folder)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", [*CASES, "compiled"])
def test_two_processes_are_one_on_the_joined_batch(name: str, cases: dict[str, Any], both: list[dict]) -> None:
    case = cases[name]
    layer = BatchNorm(4, dtype=torch.float64, **case["arguments"])
    layer.load_state_dict(case["state"])
    for step, (xs, gs) in enumerate(case["steps"]):
        sizes = [len(x) for x in xs]
        x, g = torch.cat(xs).requires_grad_(), torch.cat(gs)
        y = layer(x)
        inputs = [x, *layer.parameters()]
        grads = torch.autograd.grad(y, inputs, g, create_graph=True)
        rolled = torch.cat([part.roll(1, 0) for part in gs])
        second = torch.autograd.grad((grads[0] * rolled).sum(), inputs, allow_unused=True)
        (y0, grads0, second0, state0), (y1, grads1, second1, state1) = (results[name][step] for results in both)
        assert [len(y0), len(y1)] == sizes
        assert_close(torch.cat([y0, y1]), y.detach(), **EXACT)
        pairs = [(grads0, grads1, grads)] + ([] if case["compiled"] else [(second0, second1, second)])
        for of_rank_0, of_rank_1, expected in pairs:
            assert_close(torch.cat([of_rank_0[0], of_rank_1[0]]), expected[0].detach(), rtol=1e-8, atol=1e-8)
            for a, b, c in zip(of_rank_0[1:], of_rank_1[1:], expected[1:], strict=True):  # DDP sums these
                if c is None:
                    assert a is None
                    assert b is None
                else:
                    assert_close(a + b, c.detach(), rtol=1e-8, atol=1e-8)
        assert_close(state0, dict(layer.state_dict()), **EXACT)
        assert_close(state0, state1, rtol=0, atol=0)


def test_half_precision_input_shares_float32_statistics(
    both: list[dict], model_and_inputs: tuple[nn.Module, list[Tensor]]
) -> None:
    model, xs = model_and_inputs
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(torch.cat(xs))
    y = torch.cat([results["half"][0] for results in both])
    assert y.dtype == torch.bfloat16
    assert_close(y, expected.detach(), rtol=2**-7, atol=2**-8)  # bfloat16 has 8 bits: they may round apart
    for results in both:
        assert_close(results["half"][1], dict(model.state_dict()), rtol=1e-6, atol=1e-6)


def test_unsynchronised_ddp_saves_what_rank_0_gathered_from_its_own_batches(
    cases: dict[str, Any], both: list[dict]
) -> None:
    alone, last = BatchNorm(4, dtype=torch.float64), BatchNorm(4, dtype=torch.float64)
    for xs, _ in cases["biased"]["steps"]:
        last.load_state_dict(alone.state_dict())  # DDP: rank 1 starts each forward from rank 0's buffers
        alone(xs[0])
        last(xs[1])
    saved, other = (results["ddp"][0] for results in both)
    assert_close(saved, dict(alone.state_dict()), **EXACT)
    assert_close(other, dict(last.state_dict()), **EXACT)
    assert not torch.allclose(saved["running_mean"], other["running_mean"])


def test_synchronised_ddp_saves_the_joined_statistics_everywhere(cases: dict[str, Any], both: list[dict]) -> None:
    joined = BatchNorm(4, dtype=torch.float64)
    for xs, gs in cases["biased"]["steps"]:
        (joined(torch.cat(xs)) * torch.cat(gs)).sum().backward()
    for results in both:
        state, grads = results["ddp sync"]
        assert_close(state, dict(joined.state_dict()), **EXACT)
        assert_close(grads, [p.grad / 2 for p in joined.parameters()], **EXACT)  # DDP averages over processes


def test_gradient_accumulation_uses_each_micro_batch() -> None:
    """Two micro-batches are normalised by themselves, and move the running statistics twice."""
    layer, x = BatchNorm(4, dtype=torch.float64), draw(6, 4, seed=0)
    first, second = x[:4], x[4:]
    y = torch.cat([layer(first), layer(second)])
    expected = torch.cat([(p - p.mean(0)) / torch.sqrt(p.var(0, correction=0) + 1e-5) for p in (first, second)])
    assert_close(y, expected, **EXACT)
    assert_close(layer.running_mean, 0.9 * 0.1 * first.mean(0) + 0.1 * second.mean(0), **EXACT)
    assert_close(layer.running_var, 0.9 * (0.9 + 0.1 * first.var(0)) + 0.1 * second.var(0), **EXACT)
    assert not torch.allclose(y, BatchNorm(4, dtype=torch.float64)(x))


@pytest.fixture
def alone_in_a_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def in_turn(sync: bool) -> list[Tensor]:
    layer, x = BatchNorm(4, sync=sync), draw(6, 4, seed=0).float().requires_grad_()
    y = layer(x)
    y.backward(draw(6, 4, seed=1).float())
    return [y, x.grad, layer.weight.grad, layer.running_mean, layer.running_var, layer.eval()(x)]


def test_without_other_processes_sync_makes_no_difference(request: pytest.FixtureRequest) -> None:
    expected = in_turn(sync=False)
    assert_close(in_turn(sync=True), expected, rtol=0, atol=0)
    request.getfixturevalue("alone_in_a_group")
    assert_close(in_turn(sync=True), expected, rtol=0, atol=0)
    with pytest.raises(ValueError, match="one value per channel"):
        BatchNorm(4, sync=True)(torch.zeros(1, 4))
