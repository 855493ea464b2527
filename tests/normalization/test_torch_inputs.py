"""The inputs that torch tests its own layers with, given to ours: outputs, gradients and buffers are the same.

They come from `torch.testing._internal.common_modules`, whose import freezes torch's backend flags and changes other
settings of the process, so another process imports it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm, GroupNorm, LayerNorm, RMSNorm

pytest.importorskip("expecttest", reason="torch's test inputs need the package expecttest")

Case = tuple[
    str, tuple, dict[str, Any], tuple
]  # description, constructor's arguments and keywords, forward's arguments


def over_last(layer: Callable[..., nn.Module]) -> Callable[..., nn.Module | None]:
    """Make LayerNorm or RMSNorm, unless the statistics are to be over several dimensions, or nothing learned."""

    def make(normalized_shape: list[int], eps: float, affine: bool = True, **others: Any) -> nn.Module | None:
        fits = len(normalized_shape) == 1 and affine
        return layer(*normalized_shape, eps, **others) if fits else None

    return make


def group_norm(groups: int, channels: int, eps: float, affine: bool = True, **others: Any) -> nn.Module | None:
    """Make GroupNorm, unless nothing or no bias is to be learned."""
    return GroupNorm(channels, groups, eps, **others) if affine and "bias" not in others else None


# Each makes our layer from the arguments for torch's; None for arguments that ours does not have.
OURS: dict[type[nn.Module], Callable[..., nn.Module | None]] = {
    nn.BatchNorm1d: BatchNorm,
    nn.BatchNorm2d: BatchNorm,
    nn.BatchNorm3d: BatchNorm,
    nn.LayerNorm: over_last(LayerNorm),
    nn.GroupNorm: group_norm,
    nn.RMSNorm: over_last(RMSNorm),
}
DTYPES = [torch.float32, torch.float64, torch.bfloat16]
# bfloat16 keeps 8 bits. Both layers compute the same in one order, so nothing but the last bit may differ.
TOLERANCE = {
    torch.float32: {"rtol": 1e-6, "atol": 1e-6},
    torch.float64: {"rtol": 1e-14, "atol": 1e-14},
    torch.bfloat16: {"rtol": 2**-7, "atol": 2**-7},
}

SCRIPT = """
import sys
import torch
from torch.testing._internal.common_modules import module_db

path, *names = sys.argv[1:]
cases = {}
for info in module_db:
    name = info.module_cls.__name__
    if info.module_cls.__module__.startswith("torch.nn.modules") and name in names:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            torch.manual_seed(0)
            inputs = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)
            cases[f"{name} {dtype}"] = [
                (i.desc, i.constructor_input.args, i.constructor_input.kwargs, i.forward_input.args) for i in inputs
            ]
torch.save(cases, path)
"""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Case]]:
    path: Path = tmp_path_factory.mktemp("inputs") / "cases.pt"
    names = [torch_class.__name__ for torch_class in OURS]
    finished = subprocess.run([sys.executable, "-c", SCRIPT, path, *names], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return torch.load(path)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("torch_class", OURS)
def test_ours_does_what_torchs_does(
    torch_class: type[nn.Module], dtype: torch.dtype, training: bool, cases: dict[str, list[Case]]
) -> None:
    compared = 0
    for description, arguments, keywords, (x,) in cases[f"{torch_class.__name__} {dtype}"]:
        ours = OURS[torch_class](*arguments, **keywords, dtype=dtype)
        if ours is None:
            continue
        compared += 1
        reference = torch_class(*arguments, **keywords, dtype=dtype)
        with torch.no_grad():
            for seed, parameter in enumerate(reference.parameters()):
                parameter.normal_(generator=torch.Generator().manual_seed(seed))
        ours.load_state_dict(reference.state_dict())
        results = []
        for layer in (ours, reference):
            given = x.clone().requires_grad_()
            y = layer.train()(given)
            y = y if training else layer.eval()(given)  # its running statistics are no longer 0 and 1
            g = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(dtype)
            grads = torch.autograd.grad(y, [given, *layer.parameters()], g)
            results.append({"y": y, "grads": list(grads), **layer.state_dict()})
        assert_close(*results, **TOLERANCE[dtype], msg=lambda text, case=description: f"{case}: {text}")
    assert compared >= {nn.LayerNorm: 3, nn.RMSNorm: 2}.get(torch_class, 4)
