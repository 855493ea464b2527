"""LSUV gives every layer the variance 1 on a batch, and changes nothing but weights and biases."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from bnlm.init import initialize, kaiming_normal, lsuv, orthogonal, unit_variance


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Registered in another order than it works; with BatchNorm, a residual branch and a functional activation."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.up = nn.Linear(40, 7), nn.ConvTranspose1d(6, 5, 4, stride=2)
        self.conv, self.norm = nn.Conv1d(3, 6, 3, padding=1), nn.BatchNorm1d(6)
        self.branch = nn.Conv1d(6, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x)), inplace=True)
        x = F.gelu(self.up(x + self.branch(x)))
        return self.head(x.flatten(1))


def outputs(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return what each Linear and convolution gives in training mode."""
    found: dict[str, Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, a, out, name=name: found.setdefault(name, out.detach().clone()))
        for name, module in model.named_modules()
        if hasattr(module, "weight") and not isinstance(module, nn.BatchNorm1d)
    ]
    model.train()(x)
    for handle in handles:
        handle.remove()
    return found


def test_every_layers_output_has_variance_1() -> None:
    model, x = Net(), 5 * torch.randn(32, 3, 3, generator=seeded()) + 2
    reports = lsuv(model, x, tolerance=0.001, generator=seeded())
    found = outputs(model, x)
    assert set(found) == {"conv", "branch", "up", "head"}
    for out in found.values():
        assert out.var(correction=0).item() == pytest.approx(1, abs=0.001)
    assert all(report.std_wanted is None for report in reports)
    assert all(report.std_drawn > 0 for report in reports)


def test_it_is_the_paper_layer_by_layer() -> None:
    """Mishkin & Matas, algorithm 1, written out: draw all, then for each layer W /= sqrt(var(output))."""
    layers = [nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 4)]
    model, x = nn.Sequential(*layers).double(), torch.randn(20, 9, dtype=torch.float64, generator=seeded())
    lsuv(model, x, tolerance=1e-12, generator=seeded(3))
    reference = nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 4)).double()
    initialize(reference, orthogonal, gain=1.0, generator=seeded(3))
    with torch.no_grad():
        for end in (1, 3, 5):
            reference[end - 1].weight /= reference[:end](x).var(correction=0).sqrt()
    assert_close(model.state_dict(), reference.state_dict(), rtol=1e-10, atol=0)


def test_within_the_tolerance_nothing_is_scaled() -> None:
    model, x = nn.Sequential(nn.Linear(50, 50, bias=False)), torch.randn(200, 50, generator=seeded())
    initialize(model, orthogonal, generator=seeded())
    before = model[0].weight.clone()
    unit_variance(model, x, tolerance=0.2)
    assert torch.equal(model[0].weight, before)
    unit_variance(model, 3 * x, tolerance=0.2)
    assert model[0](3 * x).var().item() == pytest.approx(1, rel=1e-3)


def test_nothing_but_weights_changes(leftovers: Callable[..., list[str]]) -> None:
    model, x = nn.Sequential(Net(), nn.Dropout(0.5)).eval(), torch.randn(16, 3, 3, generator=seeded())
    model[0].norm.running_mean.fill_(0.3)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(3)
    random = torch.get_rng_state()
    unit_variance(model, x)
    assert_close(dict(model.named_buffers()), buffers, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert leftovers(model) == []


def test_targets_come_from_the_factors() -> None:
    model, x = Net(), torch.randn(32, 3, 3, generator=seeded())
    initialize(
        model,
        orthogonal,
        output_scale=0.1,
        overrides={"conv": {"scale": 3.0}},
        residual="branch",
        rescale=functools.partial(unit_variance, tolerance=0.001),
        example=x,
        generator=seeded(),
    )
    found = {name: out.std(correction=0).item() for name, out in outputs(model, x).items()}
    assert found == pytest.approx({"conv": 3, "branch": 1, "up": 1, "head": 0.1}, rel=1e-3)


def test_a_factor_of_0_stays_0() -> None:
    model, x = Net(), torch.randn(32, 3, 3, generator=seeded())
    initialize(model, orthogonal, overrides={"branch": {"scale": 0}}, rescale=unit_variance, example=x)
    assert model.branch.weight.count_nonzero() == 0
    assert outputs(model, x)["head"].var().item() == pytest.approx(1, abs=0.02)


def test_a_bias_is_counted_in() -> None:
    model, x = nn.Linear(30, 20), torch.randn(64, 30, generator=seeded())
    initialize(model, kaiming_normal, output_bias=0.5, rescale=unit_variance, example=x, generator=seeded())
    assert model(x).var(correction=0).item() == pytest.approx(1, abs=0.01)
    with pytest.raises(ValueError, match=r"init\.rescale\.tolerance=0\.01: the output of .* has variance .*init\.bias"):
        initialize(model, kaiming_normal, output_bias=3.0, rescale=unit_variance, example=x, generator=seeded())


def test_attention_is_scaled_at_its_output_projection() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(12, 5, 8, generator=seeded())
    lsuv(model, x, generator=seeded())
    out, _ = model.self_attn(x, x, x)
    assert out.var(correction=0).item() == pytest.approx(1, abs=0.01)
    assert_close(torch.linalg.svdvals(model.self_attn.in_proj_weight[:8].detach()), torch.ones(8), rtol=1e-5, atol=0)


def test_a_weight_tied_to_an_embedding_is_left() -> None:
    model = nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 20, bias=False))
    model[3].weight = model[0].weight
    tied = model[0].weight.clone()
    idx = torch.arange(20)
    assert unit_variance(model, idx) == ["1"]
    assert torch.equal(model[0].weight, tied)
    assert model[1](model[0](idx)).var(correction=0).item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("tolerance", [0, -1.0])
def test_the_tolerance_is_checked(tolerance: float) -> None:
    with pytest.raises(ValueError, match=r"init\.rescale\.tolerance=.*: expected a number above 0"):
        lsuv(nn.Linear(3, 2), torch.randn(4, 3), tolerance=tolerance)


def test_an_input_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has variance nan"):
        lsuv(nn.Linear(3, 2), torch.full((4, 3), torch.nan))
