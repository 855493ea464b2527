"""The changed graph computes what the traced one does, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from bnlm.graph_passes import compute_roots_once, fuse_product_updates


def step_of(gradient_of: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def step(weight: Tensor, x: Tensor, g: Tensor, lr: Tensor) -> Tensor:
        before = (x @ weight.transpose(1, 2)).sum()  # of the weight before its step
        weight.sub_(lr * gradient_of(x, g))
        return before

    return step


GRADIENTS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int]] = {
    "product": (lambda x, g: torch.bmm(g.transpose(1, 2), x), 1),
    "turned": (lambda x, g: torch.bmm(x.transpose(1, 2), g).transpose(1, 2), 1),
    "decayed": (lambda x, g: torch.bmm(g.transpose(1, 2), x) + 0.1, 0),
    "clipped": (lambda x, g: torch.bmm(g.transpose(1, 2), x).clamp(-0.1, 0.1), 0),
    "another shape": (lambda x, g: torch.bmm(g.transpose(1, 2), x).transpose(1, 2).reshape(3, 4, 5), 0),
    "other dimensions": (lambda x, g: torch.bmm(g.transpose(1, 2), x).transpose(0, 1).reshape(3, 4, 5), 0),
}


@pytest.mark.parametrize("rates", ["one", "each"])
@pytest.mark.parametrize("kind", GRADIENTS)
def test_takes_the_same_step(kind: str, rates: str) -> None:
    """Three stacked weights `(3, 4, 5)`, of 7 examples."""
    gradient_of, expected = GRADIENTS[kind]
    torch.manual_seed(0)
    weight, x, g = (torch.randn(shape, dtype=torch.float64) for shape in ((3, 4, 5), (3, 7, 5), (3, 7, 4)))
    lr = torch.tensor(0.1, dtype=torch.float64) if rates == "one" else torch.rand(3, 1, 1, dtype=torch.float64)
    step = step_of(gradient_of)
    graph = make_fx(step, tracing_mode="fake")(weight.clone(), x, g, lr)
    theirs, ours = weight.clone(), weight.clone()
    before = step(theirs, x, g, lr)
    assert fuse_product_updates(graph) == expected
    assert ("bnlm.add_product_" in graph.code) == bool(expected)
    torch.testing.assert_close(graph(ours, x, g, lr), before, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert not torch.equal(ours, weight)


def test_a_gradient_that_something_else_uses_stays() -> None:
    def step(weight: Tensor, x: Tensor, g: Tensor, lr: Tensor) -> Tensor:
        gradient = torch.bmm(g.transpose(1, 2), x)
        weight.sub_(lr * gradient)
        return gradient.norm()

    tensors = torch.randn(3, 4, 5), torch.randn(3, 7, 5), torch.randn(3, 7, 4), torch.tensor(0.1)
    assert fuse_product_updates(make_fx(step, tracing_mode="fake")(*tensors)) == 0


def test_a_product_with_another_weight_is_taken_before_that_weight_moves() -> None:
    """As in a product of two weights, whose gradients hold each other."""

    def step(a: Tensor, b: Tensor, g: Tensor, lr: Tensor) -> Tensor:
        old_a, old_b = a.detach(), b.detach()
        of_a, of_b = torch.bmm(g, old_b.transpose(1, 2)), torch.bmm(old_a.transpose(1, 2), g)
        a.sub_(lr * of_a)
        b.sub_(lr * of_b)
        return g.sum()

    torch.manual_seed(0)
    a, b, g = (torch.randn(shape, dtype=torch.float64) for shape in ((3, 4, 2), (3, 2, 5), (3, 4, 5)))
    lr = torch.tensor(0.1, dtype=torch.float64)
    graph = make_fx(step, tracing_mode="fake")(a.clone(), b.clone(), g, lr)
    fuse_product_updates(graph)
    theirs, ours = (a.clone(), b.clone()), (a.clone(), b.clone())
    step(*theirs, g, lr)
    graph(*ours, g, lr)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_roots_are_computed_once() -> None:
    def scaled(x: Tensor) -> Tensor:
        root = (x.square().mean(1, keepdim=True) + 1e-5).rsqrt()
        return x * root + root.sum()

    x = torch.randn(3, 7, 4, dtype=torch.float64)
    graph = make_fx(scaled, tracing_mode="fake")(x)
    compute_roots_once(graph)
    (node,) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.rsqrt.default)
    assert [str(user.target) for user in node.users] == ["prims.inductor_force_stride_order.default"]
    torch.testing.assert_close(graph(x), scaled(x), rtol=1e-12, atol=0)
    compiled = torch._inductor.compile(graph, [x])
    torch.testing.assert_close(compiled(x), scaled(x), rtol=1e-12, atol=1e-14)
