"""Whether logits are cosines times a scale of their author's: products of vectors that are all of one length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.probe.plain_values import is_mapped, values_of
from bnlm.probe.torch_functions import spellings

_MATMUL = spellings(["matmul", "mm", "bmm", "__matmul__"])
#: The functions that such logits may come from.
PRODUCTS: frozenset[Callable[..., Any]] = _MATMUL | {F.linear, torch.einsum, F.cosine_similarity}
#: Share of a length by which others may differ from it, in half precision too.
NEARLY = 0.01


class LastProduct:
    """What was multiplied last in a forward; kept until it is asked for, or the forward is over."""

    def __init__(self) -> None:
        self._operands: list[Tensor] = []

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take in a call of one of `PRODUCTS`."""
        if func is torch.einsum:
            args = args[1:]
        operands = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)][:2]
        if any(is_mapped(t) or values_of(t)[0] is None for t in operands):  # what vmap maps over is gone after it
            operands = []
        if func in _MATMUL and len(operands) == 2 and operands[1].ndim > 1:
            operands[1] = operands[1].mT
        self._operands = operands
        if func is F.cosine_similarity and operands:
            self._operands = [torch.ones_like(operands[0][..., :1])]

    def forget(self) -> None:
        """Something else comes after it, or the forward is over."""
        self._operands = []

    @torch.no_grad()
    def makes_cosines(self) -> Tensor | None:
        """Return whether on each side all vectors have one length, a boolean on their device; None without any.

        That length is 1, or the scale that the cosines are multiplied with.
        """
        lengths = [t.detach().float().norm(dim=-1) for t in self._operands if t.ndim > 1]
        if not lengths or len(lengths) < len(self._operands):
            return None
        return torch.stack([t.max() - t.min() < NEARLY * t.max() for t in lengths]).all()
