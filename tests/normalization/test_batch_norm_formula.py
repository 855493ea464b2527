"""The formula written out against the native kernel, the plain formula by autograd, and numerical gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from bnlm.normalization import batch_norm_formula
from bnlm.normalization.batch_norm import batch_norm, unbiased_batch_norm

SHAPES = [(8, 5), (4, 5, 3), (2, 5, 3, 4)]
EXACT = {"rtol": 1e-11, "atol": 1e-11}


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64) + 2).requires_grad_()


def kernel(x: Tensor, weight: Tensor | None, bias: Tensor | None, unbiased: bool, eps: float) -> Tensor:
    if unbiased:
        return unbiased_batch_norm(x, weight, bias, None, None, momentum=0.0, eps=eps)
    return batch_norm(x, weight, bias, None, None, training=True, momentum=0.0, eps=eps)


def formula(x: Tensor, weight: Tensor | None, bias: Tensor | None, unbiased: bool, eps: float) -> Tensor:
    return batch_norm_formula(x, weight, bias, unbiased=unbiased, eps=eps)[0]


@pytest.mark.parametrize("parameters", ["both", "weight", "none"])
@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("eps", [1e-5, 0.5, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_two_derivatives_equal_the_kernels(
    shape: tuple[int, ...], eps: float, unbiased: bool, parameters: str
) -> None:
    x, g = draw(*shape), draw(*shape, seed=1)
    weight = None if parameters == "none" else draw(5, seed=2)
    bias = draw(5, seed=3) if parameters == "both" else None
    inputs = [t for t in (x, weight, bias) if t is not None]
    ways = []
    for normalize in (formula, kernel):
        y = normalize(x, weight, bias, unbiased, eps)
        first = torch.autograd.grad(y, inputs, g, create_graph=True)
        second = torch.autograd.grad(first[0].pow(3).sum(), [x, g], retain_graph=True)
        ways.append([y, *first, *second])
    assert_close(*ways, **EXACT)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (3, 3, 2)])
def test_numerical_gradients(shape: tuple[int, ...], unbiased: bool) -> None:
    inputs = (draw(*shape), draw(3, seed=1), draw(3, seed=2))

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return formula(x, weight, bias, unbiased, 1e-3)

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_backward_is_the_lectures_line() -> None:
    """Karpathy, makemore part 4, exercise 3."""
    x, dhpreact, bngain = draw(7, 5), draw(7, 5, seed=1).detach(), draw(5, seed=2)
    formula(x, bngain, None, True, 1e-5).backward(dhpreact)
    with torch.no_grad():
        n = 7
        bnvar_inv = (x.var(0, keepdim=True, correction=1) + 1e-5) ** -0.5
        bnraw = (x - x.mean(0, keepdim=True)) * bnvar_inv
        dhprebn = (
            bngain * bnvar_inv / n
            * (n * dhpreact - dhpreact.sum(0) - n / (n - 1) * bnraw * (dhpreact * bnraw).sum(0))
        )  # fmt: skip
    assert_close(x.grad, dhprebn, **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
def test_returns_the_statistics(shape: tuple[int, ...]) -> None:
    x = draw(*shape)
    _, mean, squares, count = batch_norm_formula(x)
    values = x.detach().transpose(0, 1).flatten(1)
    assert_close(mean, values.mean(1), **EXACT)
    assert_close(squares, values.var(1, correction=0) * values.size(1), **EXACT)
    assert count.item() == values.size(1)
    assert not any(t.requires_grad for t in (mean, squares, count))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, g = (draw(64, 5, seed=seed).detach().to(dtype) for seed in (0, 1))
    weight, bias = torch.linspace(0.5, 2, 5), torch.linspace(-1, 1, 5)
    ways = []
    for given in (x, x.float()):
        leaves = [t.clone().requires_grad_() for t in (given, weight, bias)]
        y, mean, _, _ = batch_norm_formula(*leaves)
        y.backward(g.to(given.dtype))
        ways.append([y, mean, *[leaf.grad for leaf in leaves]])
    half, full = ways
    assert half[0].dtype == half[2].dtype == dtype
    assert half[1].dtype == half[3].dtype == torch.float32
    assert_close(half[0], full[0].to(dtype), rtol=0, atol=0)
    assert_close(half[1:2] + half[3:], full[1:2] + full[3:], rtol=0, atol=0)
    assert_close(half[2], full[2].to(dtype), rtol=0, atol=0)


def test_under_vmap_and_forward_over_a_function_transform() -> None:
    xs, weight, bias = draw(6, 4, 3, 2).detach(), draw(3, seed=1).detach(), draw(3, seed=2).detach()

    def loss(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return formula(x, weight, bias, True, 1e-3).pow(3).sum()

    gradient = torch.func.grad(loss, argnums=(0, 1, 2))
    together = torch.vmap(gradient, (0, None, None))(xs, weight, bias)
    one_by_one = [torch.stack(parts) for parts in zip(*(gradient(x, weight, bias) for x in xs), strict=True)]
    assert_close(list(together), one_by_one, **EXACT)
    hessian = torch.func.jacrev(torch.func.grad(loss))(xs[0], weight, bias)
    assert_close(hessian, hessian.permute(3, 4, 5, 0, 1, 2), **EXACT)
    expected = torch.autograd.functional.hessian(lambda x: kernel(x, weight, bias, True, 1e-3).pow(3).sum(), xs[0])
    assert_close(hessian, expected, rtol=1e-9, atol=1e-9)


def test_a_mean_of_1e4_costs_float32_no_more_than_its_own_rounding() -> None:
    """float32 has steps of 1e-3 at 1e4, and a standard deviation of 1 makes a step of the mean one of the output."""
    x = torch.randn(512, 5, generator=torch.Generator().manual_seed(0)) + 1e4
    y, _, squares, _ = batch_norm_formula(x)
    expected, _, exact_squares, _ = batch_norm_formula(x.double())
    assert_close(y.double(), expected, rtol=0, atol=5e-3)
    assert_close(squares.double(), exact_squares, rtol=1e-4, atol=0)
