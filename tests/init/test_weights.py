"""Fans against counted terms; stacked weights are drawn part by part."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.init import initialize, kaiming_normal, orthogonal, weights_of, xavier_normal

CONVOLUTIONS = [
    nn.Conv1d(4, 6, 5, groups=2),
    nn.Conv2d(4, 6, (3, 5), stride=(2, 3)),
    nn.Conv3d(4, 8, 3, groups=4),
    nn.Conv2d(6, 6, 3, groups=6),
    nn.ConvTranspose1d(4, 6, 6, stride=3, groups=2),
    nn.ConvTranspose2d(4, 6, (4, 6), stride=(2, 3)),
    nn.ConvTranspose2d(3, 5, 3),
    nn.ConvTranspose3d(4, 6, 4, stride=2, groups=2),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def interior(x: torch.Tensor) -> torch.Tensor:
    """Return the middle of each dimension of space: 6 places, a multiple of every stride above, far from the edges."""
    for dim in range(2, x.dim()):
        x = x.narrow(dim, (x.size(dim) - 6) // 2, 6)
    return x


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_fans_of_convolutions_are_the_counted_terms(layer: nn.Module) -> None:
    """With ones everywhere an output is the number of its terms, and an input's gradient that of its uses."""
    size = (2, layer.in_channels, *[30] * (layer.weight.dim() - 2))
    x = torch.ones(size, dtype=torch.float64, requires_grad=True)
    layer = layer.double()
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.zero_()
    out = layer(x)
    (grad,) = torch.autograd.grad(out.sum(), x)
    (weight,) = weights_of(layer)
    assert weight.fans == (
        pytest.approx(interior(out).mean().item()),
        pytest.approx(interior(grad).mean().item()),
    )


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_kaiming_keeps_the_variance_through_convolutions(layer: nn.Module) -> None:
    wide = type(layer)(64, 64, layer.kernel_size, stride=layer.stride, groups=2, bias=False)
    initialize(wide, kaiming_normal, generator=seeded())
    dimensions = wide.weight.dim() - 2
    x = torch.randn(2, 64, *[{1: 600, 2: 40, 3: 16}[dimensions]] * dimensions, generator=seeded(1))
    out = wide(x)
    for dim in range(2, out.dim()):  # without the edges, where terms are missing
        out = out.narrow(dim, out.size(dim) // 4, out.size(dim) // 2)
    assert out.var().item() == pytest.approx(1, abs=0.1)


def test_fans_of_the_other_layers() -> None:
    assert [w.fans for w in weights_of(nn.Linear(4, 5))] == [(4, 5)]
    assert [w.fans for w in weights_of(nn.Bilinear(4, 5, 6))] == [(20, 30)]
    assert [w.fans for w in weights_of(nn.Embedding(7, 5))] == [(1, 5)]
    assert [(w.name, w.fans, w.parts) for w in weights_of(nn.LSTM(4, 6, proj_size=3))] == [
        ("weight_ih_l0", (4, 6), 4),
        ("weight_hh_l0", (3, 6), 4),
        ("weight_hr_l0", (6, 3), 1),
    ]
    assert [(w.fans, w.parts) for w in weights_of(nn.GRUCell(4, 6))] == [((4, 6), 3), ((6, 6), 3)]
    assert [(w.fans, w.parts) for w in weights_of(nn.RNN(4, 6, 2))] == [((n, 6), 1) for n in (4, 6, 6, 6)]
    assert [(w.name, w.fans, w.parts) for w in weights_of(nn.MultiheadAttention(6, 2))] == [
        ("in_proj_weight", (6, 6), 3)
    ]
    separate = nn.MultiheadAttention(6, 2, kdim=4, vdim=5)
    assert [(w.fans, w.parts) for w in weights_of(separate)] == [((6, 6), 1), ((4, 6), 1), ((5, 6), 1)]
    assert weights_of(nn.LayerNorm(4)) == []


@pytest.mark.parametrize(
    ("layer", "gates"),
    [(nn.LSTM(5, 6, 2, bidirectional=True), 4), (nn.GRU(5, 6), 3), (nn.RNN(5, 6), 1), (nn.LSTMCell(5, 6), 4)],
)
def test_every_gate_is_orthogonal_on_its_own(layer: nn.Module, gates: int) -> None:
    initialize(layer, orthogonal, generator=seeded())
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            assert parameter.count_nonzero() == 0
            continue
        assert parameter.size(0) == gates * 6
        for gate in parameter.split(6):
            assert_close(torch.linalg.svdvals(gate), torch.ones(min(gate.shape)), rtol=1e-5, atol=0)


def test_xavier_gives_a_gate_the_scale_of_its_own_shape() -> None:
    layer = nn.LSTM(50, 80)
    reports = initialize(layer, xavier_normal, generator=seeded())
    assert [(r.layer, r.fan_in, r.gain) for r in reports] == [("weight_ih_l0", 50, 1.0), ("weight_hh_l0", 80, 1.0)]
    for report, fan_in in zip(reports, (50, 80), strict=True):
        assert report.std_wanted == pytest.approx(math.sqrt(2 / (fan_in + 80)))
        assert report.std_drawn == pytest.approx(report.std_wanted, rel=5 / math.sqrt(2 * 4 * 80 * fan_in))


def test_query_key_and_value_are_three_draws() -> None:
    attention = nn.MultiheadAttention(8, 2)
    reports = initialize(attention, orthogonal, generator=seeded())
    assert [report.layer for report in reports] == ["", "out_proj"]
    for part in (*attention.in_proj_weight.split(8), attention.out_proj.weight):
        assert_close(torch.linalg.svdvals(part.detach()), torch.ones(8), rtol=1e-5, atol=0)


def test_groups_and_transposed_convolutions_are_orthogonal_by_group() -> None:
    for layer in (nn.Conv2d(8, 12, 3, groups=4), nn.ConvTranspose2d(8, 12, 2, stride=2, groups=4)):
        initialize(layer, orthogonal, generator=seeded())
        for part in layer.weight.detach().chunk(4):
            values = torch.linalg.svdvals(part.flatten(1))
            assert_close(values, torch.ones_like(values), rtol=1e-5, atol=0)


def test_a_transposed_convolution_without_overlap_keeps_lengths() -> None:
    layer = nn.ConvTranspose2d(8, 4, 2, stride=2, bias=False)
    initialize(layer, orthogonal, generator=seeded())
    x = torch.randn(3, 8, 5, 6, generator=seeded(1))
    assert layer(x).norm().item() == pytest.approx(x.norm().item(), rel=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Bilinear(30, 20, 40),
        nn.Conv2d(8, 64, 5, groups=2),
        nn.ConvTranspose2d(64, 8, 5, stride=2),
        nn.LSTM(40, 50),
        nn.GRUCell(40, 50),
        nn.MultiheadAttention(48, 4),
        nn.MultiheadAttention(48, 4, kdim=30, vdim=60),
        nn.EmbeddingBag(60, 40),
    ],
    ids=str,
)
def test_what_torch_drew_is_reported_as_wanted(layer: nn.Module) -> None:
    torch.manual_seed(0)
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for report in initialize(layer, None, bias=None, output_bias=None):
        assert report.std_drawn == pytest.approx(report.std_wanted, rel=5 / math.sqrt(2 * math.prod(report.shape)))


def test_a_parametrized_layer_is_refused() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    with pytest.raises(ValueError, match=r"0\.weight is computed from other parameters.*before it is put on"):
        initialize(model, kaiming_normal)
