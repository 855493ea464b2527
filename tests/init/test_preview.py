"""One batch before training: the scales against plain hooks, and which start keeps which activation alive."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.init import Preview, preview, preview_depth
from bnlm.init.preview import PreviewRow

SEEDS = range(3)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b, self.c = nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 7), nn.Linear(7, 3)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = [torch.relu(self.norm(self.a(x)))]
        self.seen.append(F.gelu(self.b(self.seen[0])))
        self.seen.append(self.c(self.seen[1]))
        return self.drop(self.seen[2])


def test_rows_are_the_scales_of_autograd() -> None:
    model, x, target = Net(), torch.randn(12, 5), torch.randn(12, 3)
    model.drop.p = 0.0
    found = preview(model, x, lambda out: F.mse_loss(out, target))
    loss = F.mse_loss(model(x), target)
    gradients = torch.autograd.grad(loss, model.seen)
    assert [(row.layer, row.activation) for row in found.rows] == [("a", "relu"), ("b", "gelu"), ("c", None)]
    for row, out, gradient in zip(found.rows, model.seen, gradients, strict=True):
        assert row.activation_std == pytest.approx(out.std(correction=0).item(), rel=1e-5)
        assert row.over_batch == pytest.approx(out.var(0, correction=0).mean().sqrt().item(), rel=1e-5)
        assert row.gradient_std == pytest.approx(gradient.std(correction=0).item(), rel=1e-5)
    assert found.rows[0].preactivation_std == pytest.approx(model.a(x).std(correction=0).item(), rel=1e-5)
    first, last = found.rows[0], found.rows[1]  # the layers with an activation
    assert found.activation_ratio == pytest.approx(last.activation_std / first.activation_std)
    assert found.gradient_ratio == pytest.approx(first.gradient_std / last.gradient_std)


def test_looking_changes_nothing(leftovers: Callable[..., list[str]]) -> None:
    model, x = Net().eval(), torch.randn(12, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    random = torch.get_rng_state()
    assert preview(model, x) == preview(model, x)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    assert leftovers(model) == []


def test_frozen_models_have_no_gradients_and_a_verdict_all_the_same() -> None:
    found = preview(Net().requires_grad_(False), torch.randn(12, 5))
    assert [row.gradient_std for row in found.rows] == [None] * 3
    assert math.isnan(found.gradient_ratio)
    assert found.verdict in ("alive", "faded")


def test_table_and_picture(tmp_path: Path) -> None:
    found = preview(Net(), torch.randn(12, 5))
    page = io.StringIO()
    Console(file=page, width=120).print(found.table())
    for row in found.rows:
        line = next(line for line in page.getvalue().splitlines() if f"│ {row.layer} " in line)
        assert f"{row.activation_std:.3g}" in line
        assert f"{row.gradient_std:.3g}" in line
    found.save(tmp_path / "scales.png")
    assert (tmp_path / "scales.png").read_bytes()[:4] == b"\x89PNG"


def rows(*scales: tuple[float, float | None]) -> Preview:
    return Preview([PreviewRow(str(i), "relu", 1.0, std, std, gradient) for i, (std, gradient) in enumerate(scales)])


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (rows((1.0, 1.0), (1.9, 1.0)), "alive"),
        (rows((1.0, 1.0), (2.1, 1.0)), "blown up"),
        (rows((1.0, 1.0), (0.4, 1.0)), "faded"),
        (rows((1.0, 1.0), (0.4, 1.0), (1.0, 1.0)), "faded"),  # it has to stay, not to come back
        (rows((1.0, 1.0), (math.nan, math.nan)), "blown up"),
        (rows((0.0, 0.0), (0.0, 0.0)), "blown up"),
        (rows((1.0, 20.0), (1.0, 1.0)), "alive, gradient uneven"),
        (rows((1.0, 2e3), (1.0, 1.0)), "gradient blown up"),
        (rows((1.0, 1.0), (1.0, 2e3)), "gradient faded"),
        (rows((1.0, None), (1.0, None)), "alive"),
        (rows(), "empty"),
    ],
)
def test_verdicts(found: Preview, verdict: str) -> None:
    assert found.verdict == verdict


def within(found: Preview) -> bool:
    """Return whether every activation's standard deviation is within 0.5 .. 2 of the first layer's."""
    assert len(found.rows) == 50
    ratios = [row.activation_std / found.rows[0].activation_std for row in found.rows]
    return all(0.5 <= ratio <= 2 for ratio in ratios)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.SELU])
def test_lsuv_keeps_50_layers_alive(activation: type[nn.Module], seed: int) -> None:
    assert within(preview_depth(activation, "lsuv", 50, seed=seed))


@pytest.mark.parametrize(
    ("activation", "start"),
    [(nn.Tanh, "kaiming"), (nn.Tanh, "orthogonal"), (nn.SELU, "xavier, gain 1")],
)
def test_without_data_tanh_lives_by_five_thirds_and_selu_by_gain_1(activation: type[nn.Module], start: str) -> None:
    assert all(within(preview_depth(activation, start, 50, seed=seed)) for seed in SEEDS)


def test_what_does_not_live() -> None:
    for activation in (nn.ReLU, nn.GELU, nn.SiLU, nn.SELU):
        assert preview_depth(activation, "normal", 50).verdict == "blown up"
    assert preview_depth(nn.Tanh, "normal", 50).verdict == "gradient blown up"
    glorot_on_relu = preview_depth(nn.ReLU, "xavier, gain 1", 50)
    assert glorot_on_relu.verdict == "faded"
    assert glorot_on_relu.activation_ratio == pytest.approx(2 ** (-49 / 2), rel=1)  # half of the variance, 49 times
    for activation in (nn.GELU, nn.SiLU):  # the computed gain's fixed point is unstable
        assert preview_depth(activation, "kaiming", 50).verdict == "blown up"
    assert preview_depth(nn.SELU, "kaiming", 50).verdict == "faded"  # torch's gain of 3/4


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="start='glorot': expected one of normal; xavier, gain 1; kaiming"):
        preview_depth(nn.Tanh, "glorot", 5)
    with pytest.raises(ValueError, match="depth=0: expected a whole number of at least 1"):
        preview_depth(nn.Tanh, "lsuv", 0)


def test_the_package_needs_torch_only() -> None:
    code = "import sys, bnlm.init; print([m for m in ('rich', 'matplotlib', 'lightning', 'hydra') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
