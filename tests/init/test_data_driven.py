"""The options that need more than a scale: orthogonal matrices, and layers scaled by what the data makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.init import initialize, kaiming_normal
from bnlm.models import MLP

CONF = Path(__file__).parents[2] / "conf"


def build(option: str, *overrides: str) -> tuple[MLP, Tensor]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(overrides=[f"+init={option}", *overrides]).init
    torch.manual_seed(0)
    model, batch = MLP(27, 3, 10, [50, 40]), torch.randint(27, (500, 3), generator=torch.Generator().manual_seed(1))
    instantiate(config)(model, example=batch, generator=torch.Generator().manual_seed(0))
    return model, batch


def test_orthogonal_rows_or_columns_are_orthonormal_times_the_gain() -> None:
    model, _ = build("orthogonal")
    wide, narrow = (block.linear.weight for block in model.blocks)  # (50, 30) and (40, 50)
    gain = (5 / 3) ** 2
    assert_close(wide.T @ wide, gain * torch.eye(30), rtol=0, atol=1e-5)
    assert_close(narrow @ narrow.T, gain * torch.eye(40), rtol=0, atol=1e-5)


def test_lsuv_gives_every_layer_outputs_of_variance_1() -> None:
    model, batch = build("lsuv", "init.output_scale=1")
    stds: list[Tensor] = []
    for block in [*model.blocks, model.output]:
        block.linear.register_forward_hook(lambda m, a, out: stds.append(out.std()))
    model(batch)
    assert_close(torch.stack(stds), torch.ones(3), rtol=0.05, atol=0)


def test_gates_are_drawn_one_by_one() -> None:
    lstm = nn.LSTM(20, 60)
    initialize(lstm, kaiming_normal, gain=1.0, generator=torch.Generator().manual_seed(0))
    for gate in lstm.weight_ih_l0.chunk(4):
        assert gate.std().item() == pytest.approx(20**-0.5, rel=5 / (2 * gate.numel()) ** 0.5)
    for gate in lstm.weight_hh_l0.chunk(4):
        assert gate.std().item() == pytest.approx(60**-0.5, rel=5 / (2 * gate.numel()) ** 0.5)


def test_a_functional_activation_is_found_by_watching() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = nn.Linear(8, 9), nn.Linear(9, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.b(torch.relu(self.a(x)))))

    reports = initialize(Functional(), kaiming_normal, example=torch.randn(4, 8))
    assert [report.gain for report in reports] == pytest.approx([2**0.5, 5 / 3, 1.0])


def test_overrides_by_pattern() -> None:
    model = nn.Sequential(nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 5))
    initialize(model, kaiming_normal, overrides={"2.*": {"scale": 0.1, "bias": 0.3}})
    assert model[2].weight.std().item() == pytest.approx(0.1 / 40**0.5, rel=0.25)
    assert model[2].bias.abs().min() > 0
    with pytest.raises(ValueError, match=r"init\.overrides='heads\.\*': matches nothing in full"):
        initialize(model, kaiming_normal, overrides={"heads.*": {"scale": 0.1}})


def test_residual_branches() -> None:
    model = nn.Sequential(*(nn.Linear(50, 50) for _ in range(4)))
    initialize(model, kaiming_normal, gain=1.0, residual="[02]")
    stds = [layer.weight.std().item() * 50**0.5 for layer in model]
    assert stds[0] == pytest.approx(2**-0.5, rel=0.1)
    assert stds[1] == pytest.approx(1, rel=0.1)
