"""Where the time of one training step goes, and how little it could take.

    python scripts/profile_step.py [--replicas 1] [--threads 1] [--quick]

Takes steps of the lecture's deep network with BatchNorm (`experiment=lecture_deep`, batch 32, SGD), eagerly under
torch's profiler and compiled, and prints the operations by kind with their share of the time. The floor is what the
matrix products alone take, timed one after the other on tensors of the same shapes, and the bytes that have to move.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bnlm.assembly import build_data, build_language_model, quieten
from bnlm.compiled_step import CompiledStep
from bnlm.config import CONF, check

#: Compiled steps taken at once, as of a Lightning batch of the experiment.
STEPS = 50
#: Beginnings of the names of torch's operations, by kind; the first that fits counts.
KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "normalization": ("aten::native_batch_norm", "aten::var", "aten::mean", "aten::rsqrt", "aten::sum"),
    "tanh": ("aten::tanh",),
    "loss": ("aten::_log_softmax", "aten::nll_loss", "aten::exp"),
    "embedding": ("aten::embedding", "aten::index", "aten::scatter", "aten::gather"),
    "optimizer": ("Optimizer", "aten::_fused_sgd", "aten::_foreach"),
}


def kind_of(name: str) -> str:
    return next((kind for kind, begins in KINDS.items() if name.startswith(begins)), "everything else")


def seconds_of(call: Callable[[], Any], repeats: int) -> float:
    for _ in range(max(1, repeats // 10)):
        call()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def products(model: nn.Module, replicas: int, batch: int, repeats: int) -> tuple[int, float]:
    """Return the floating-point operations of a step's matrix products, and the seconds that these take alone."""
    operations, seconds = 0, 0.0
    for module in model.modules():
        if not isinstance(module, nn.Linear):
            continue
        out, fan_in = module.weight.shape[-2:]
        x, w = torch.randn(replicas, batch, fan_in), torch.randn(replicas, out, fan_in)
        g = torch.randn(replicas, batch, out)

        def forward_backward(x: Tensor = x, w: Tensor = w, g: Tensor = g) -> None:
            torch.bmm(x, w.mT)
            torch.bmm(g.mT, x)
            torch.bmm(g, w)

        operations += 3 * 2 * replicas * batch * out * fan_in
        seconds += seconds_of(forward_backward, repeats)
    return operations, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=1, help="networks trained at once")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--quick", action="store_true", help="few steps, to see that everything runs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    quieten()
    repeats = 5 if options.quick else 300
    with initialize_config_dir(str(CONF), version_base="1.3"):
        given = [
            "experiment=lecture_deep",
            "data=names",
            "normalization=batch",
            f"replicas={options.replicas}",
            "logger=csv",
            "logger.save_dir=.",
        ]
        cfg = compose("train", given)
    check(cfg)
    data = build_data(cfg)
    language_model = build_language_model(cfg, data)
    model, loss_of = language_model.model, language_model.loss_of
    contexts, targets = data.examples("train")
    rows = torch.randint(len(targets), (options.replicas, data.batch_size))
    x, y = contexts[rows].long(), targets[rows].long()
    if options.replicas == 1:
        x, y = x[0], y[0]
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, lr=0.1, fused=True)

    def eager() -> None:
        loss = loss_of(model(x), y).sum()
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        optimizer.step()

    eager_seconds = seconds_of(eager, repeats)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(repeats):
            eager()
    spent: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in profiled.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total
        calls[kind_of(event.key)] += event.count
    step = CompiledStep(model, loss_of, optimizer)
    step.begin(x, y)
    several = x.expand(STEPS, *x.shape), y.expand(STEPS, *y.shape), STEPS * [[0.1]]
    compiled_seconds = seconds_of(lambda: step(*several), max(1, repeats // STEPS)) / STEPS
    operations, product_seconds = products(model, options.replicas, data.batch_size, repeats)

    table = Table("operations of an eager step", "calls", "share of the time")
    for kind in sorted(spent, key=lambda kind: -spent[kind]):
        table.add_row(kind, f"{calls[kind] / repeats:.0f}", f"{spent[kind] / sum(spent.values()):.0%}")
    Console(width=100).print(table)
    held = sum(p.numel() * p.element_size() for p in parameters)
    print(f"{options.replicas} network(s), {held / 1e6:.2f} MB of parameters, batch {data.batch_size}")
    print(f"eager step {eager_seconds * 1e3:.3f} ms, compiled step {compiled_seconds * 1e3:.3f} ms")
    print(
        f"floor: {operations / 1e6:.1f} million operations in matrix products, {product_seconds * 1e3:.3f} ms alone "
        f"({operations / product_seconds / 1e9:.0f} GFLOPS); weights read three times, gradients written and read, "
        f"weights written: {6 * held / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
