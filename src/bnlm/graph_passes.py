"""What can be made of a traced step of stacked networks that inductor does not make of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._inductor.inductor_prims import force_stride_order

aten = torch.ops.aten

# As an operation of its own, since functionalization would make of `baddbmm_` a product and a copy.
_library = torch.library.Library("bnlm", "DEF")
_library.define("add_product_(Tensor(a!) weight, Tensor left, Tensor right) -> ()")


def _add_product(weight: Tensor, left: Tensor, right: Tensor) -> None:
    weight.baddbmm_(left, right)


_library.impl("add_product_", _add_product, "CompositeExplicitAutograd")


def compute_roots_once(graph: fx.GraphModule) -> None:
    """Have each `rsqrt` of a traced step written to memory, and read where it is used.

    Inductor puts what is computed from a few values into the loop that uses it, and so the root and the quotient of a
    channel's variance before each of its examples, where nothing else takes as long.

    Args:
        graph: A step of plain tensor operations, as `make_fx` traces it; is changed.
    """
    for node in graph.graph.find_nodes(op="call_function", target=aten.rsqrt.default):
        with graph.graph.inserting_after(node):
            written = graph.graph.call_function(force_stride_order, (node, list(node.meta["val"].stride())))
        node.replace_all_uses_with(written, delete_user_cb=lambda user, written=written: user is not written)
        written.meta = dict(node.meta)
    graph.recompile()


def fuse_product_updates(graph: fx.GraphModule) -> int:
    """Take SGD's step of a weight in the product that makes its gradient: weight -= lr · gᵀ x, in place.

    The gradient is then never written to memory, to be read, turned and subtracted by another loop. Only gradients that
    are one batched product, or its transpose, and that nothing else uses are taken: with weight decay, momentum or
    clipping, and where a weight is used twice, the graph stays as it is. So it does where a factor is a weight too,
    which would have moved before it is multiplied.

    Args:
        graph: A step of plain tensor operations, as `make_fx` traces it; is changed.
    Returns:
        How many updates were found.
    """
    found = 0
    changed = {_storage(node.args[0]) for node in graph.graph.nodes if _changes_in_place(node)}
    for node in graph.graph.find_nodes(op="call_function", target=aten.sub_.Tensor):
        weight, step = node.args
        product, turned = _product_of(step)
        if product is None or any(_storage(factor) in changed for factor in product.args):
            continue
        left, right = product.args
        with graph.graph.inserting_before(node):
            call = graph.graph.call_function
            # The rate is put on a factor, which has fewer elements than the product.
            scaled = call(aten.neg.default, (call(aten.mul.Tensor, (right, step.args[0])),))
            factors = (left, scaled)
            if turned:
                factors = (call(aten.transpose.int, (scaled, 1, 2)), call(aten.transpose.int, (left, 1, 2)))
            call(torch.ops.bnlm.add_product_.default, (weight, *factors))
        graph.graph.erase_node(node)
        found += 1
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return found


def _product_of(step: fx.Node) -> tuple[fx.Node | None, bool]:
    """Return the batched product whose multiple, by a rate, the step is, and whether it is turned."""
    turned = False
    if step.target is not aten.mul.Tensor or len(step.users) > 1:
        return None, turned
    node = step.args[1]
    while isinstance(node, fx.Node) and len(node.users) == 1:
        if node.target is aten.bmm.default:
            return node, turned
        if node.target is aten.transpose.int and node.args[1:] == (1, 2):
            turned = not turned
        elif node.target is not aten.view.default or _shape(node) != _shape(node.args[0]):
            break
        node = node.args[0]
    return None, turned


def _changes_in_place(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _storage(node: Any) -> int:
    """Return what tells the memory of a traced tensor, which its views share."""
    number: int = node.meta["val"].untyped_storage()._cdata
    return number


def _shape(node: Any) -> torch.Size:
    shape: torch.Size = node.meta["val"].shape
    return shape
