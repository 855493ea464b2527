"""Ratios against torch.std in float64."""

import math
from collections.abc import Callable

import pytest
import torch

from bnlm.stats import difference, gradient_to_data, update_to_data


def test_ratios_match_torch() -> None:
    torch.manual_seed(4)
    before, gradient = torch.randn(7, 5), 1e-3 * torch.randn(7, 5)
    after = before - 0.1 * gradient
    moved = (after - before).double()
    torch.testing.assert_close(
        gradient_to_data(gradient, before), gradient.double().std() / before.double().std(), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        update_to_data(before, after), torch.log10(moved.std() / before.double().std()), rtol=1e-12, atol=0
    )


def test_where_there_is_no_ratio() -> None:
    ones, varied = torch.ones(200), torch.linspace(-1, 1, 200)
    assert gradient_to_data(varied, ones) == math.inf
    assert math.isnan(gradient_to_data(ones, ones))
    assert update_to_data(ones, ones + varied) == math.inf
    assert update_to_data(varied, varied) == -math.inf
    assert math.isnan(update_to_data(ones, ones))


@pytest.mark.parametrize("ratio", [gradient_to_data, update_to_data])
def test_shapes_must_agree(ratio: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=r"shapes \(3, 2\) and \(2, 3\); they must be equal"):
        ratio(torch.ones(3, 2), torch.ones(2, 3))


def test_a_difference_of_bfloat16_is_taken_in_float32() -> None:
    before, after = torch.tensor([1.0, 3.0]).bfloat16(), torch.tensor([0.00390625, 3.0]).bfloat16()
    moved = difference(before, after)
    assert moved.dtype == torch.float32
    assert moved.tolist() == [0.00390625 - 1.0, 0.0]  # bfloat16 would round it to -1
    assert difference(before.double(), after.double()).dtype == torch.float64
