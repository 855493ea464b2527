"""The tanh of compiled steps, against torch's in float64."""

import pytest
import torch

from bnlm.rational_tanh import DENOMINATOR, LIMIT, NUMERATOR, _polynomial, rational_tanh


def test_is_tanh_to_5e_7_of_itself_near_and_far_from_zero() -> None:
    near = torch.logspace(-30, 1, 300_001)
    x = torch.cat([torch.linspace(-12, 12, 1_000_001), near, -near])
    x = x[x != 0]
    relative = rational_tanh(x).double() / x.double().tanh() - 1
    assert relative.abs().max() < 5e-7
    assert rational_tanh(torch.zeros(1)) == 0


def test_the_quotient_itself_is_exact_to_less_than_half_of_float32s_rounding() -> None:
    x = torch.linspace(1e-4, LIMIT, 1_000_001, dtype=torch.float64)
    quotient = x * _polynomial(NUMERATOR, x * x) / _polynomial(DENOMINATOR, x * x)
    assert (quotient / x.tanh() - 1).abs().max() < 2.4e-8


def test_never_leaves_minus_one_to_one() -> None:
    """Beyond it the derivative, 1 - tanh², would push a saturated unit further."""
    x = torch.cat([torch.linspace(5, LIMIT + 1, 1_000_001), torch.tensor([1e30, torch.inf])])
    y = rational_tanh(x)
    assert y.max() == 1
    assert rational_tanh(-x).min() == -1
    assert y[-1] == 1
    assert y[x > LIMIT].min() > 1 - 2**-22


def test_nan_stays_nan_and_other_types_are_left_to_torch() -> None:
    assert rational_tanh(torch.tensor([torch.nan])).isnan()
    assert rational_tanh(torch.zeros(1, dtype=torch.float64)) is NotImplemented


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_in_a_compiled_graph(dtype: torch.dtype) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    x = torch.linspace(-3, 3, 64, dtype=dtype)
    graph = make_fx(torch.tanh, decomposition_table={torch.ops.aten.tanh.default: rational_tanh})(x)
    targets = {str(node.target) for node in graph.graph.nodes}
    assert ("aten.tanh.default" in targets) == (dtype == torch.float64)
    torch.testing.assert_close(graph(x), x.tanh(), rtol=5e-7, atol=0)
