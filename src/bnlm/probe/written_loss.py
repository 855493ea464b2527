"""Recognizes a loss that is written out: `((output - target) ** 2).mean()`, `-log_probs[rows, target].mean()`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.probe.loss_record import FIXED, LossRecord, loss_record
from bnlm.probe.plain_values import is_mapped, place_of
from bnlm.probe.reach import Reach

_SUBTRACT: tuple[Callable[..., Any], ...] = (Tensor.sub, torch.sub, torch.subtract, Tensor.subtract)
_SQUARE: tuple[Callable[..., Any], ...] = (Tensor.square, torch.square)
_POWER: tuple[Callable[..., Any], ...] = (Tensor.pow, torch.pow, Tensor.__pow__)
_ABSOLUTE: tuple[Callable[..., Any], ...] = (Tensor.abs, torch.abs, Tensor.absolute, torch.absolute)
_GATHER: tuple[Callable[..., Any], ...] = (Tensor.gather, torch.gather)
_LOG_SOFTMAX: tuple[Callable[..., Any], ...] = (Tensor.log_softmax, torch.log_softmax, F.log_softmax)
#: The functions that such losses are made of.
WRITTEN: tuple[Callable[..., Any], ...] = (
    *_SUBTRACT, *_SQUARE, *_POWER, *_ABSOLUTE, *_LOG_SOFTMAX, *_GATHER, Tensor.__getitem__
)  # fmt: skip


class WrittenLoss:
    """Follows the functions of which a loss is made.

    What looks like a loss may be a part of the network, or a term that is added to another loss: it is to be believed
    only where the loss of the step is one of its `scales` times its mean.
    """

    def __init__(self) -> None:
        self._last: LossRecord | None = None
        self._of_micro_batches: list[LossRecord] = []
        self._difference: tuple[ref[Tensor], Tensor, Tensor] | None = None
        self._log_softmax: tuple[int | None, Tensor, int] | None = None  # where its result lies, its input, over what

    def next_forward(self) -> None:
        """Another micro-batch begins, whose loss is averaged with the last one's."""
        if self._last is not None:
            self._of_micro_batches.append(self._last)
        self._last = self._difference = self._log_softmax = None  # nothing of the graph is kept until the step is read

    def record(self) -> LossRecord | None:
        """Return the record of the last in each forward that looked like a loss; None without any."""
        self.next_forward()
        records = self._of_micro_batches
        if len({(record.kind, record.values.shape) for record in records}) != 1:
            return None
        values, number = torch.stack([record.values for record in records]).mean(dim=0), len(records)
        values[1] /= number**0.5  # a standard error
        values[FIXED:] *= number
        return replace(records[0], values=values)

    def logits_of(self, log_probs: Tensor, classes: int) -> Tensor | None:
        """Return what log-probabilities were made of, in their shape; None where the last log_softmax made others.

        Args:
            log_probs: Over the classes in dimension `classes`.
            classes: If log_softmax was taken over another, there is nothing to be returned either.
        """
        if self._log_softmax is None:
            return None
        at, logits, dim = self._log_softmax
        if (
            at is None
            or place_of(log_probs) != at
            or log_probs.numel() != logits.numel()
            or not log_probs.is_contiguous()
        ):
            return None
        behind = dim % logits.ndim - logits.ndim, classes % log_probs.ndim - log_probs.ndim
        same = behind == (-1, -1) or (behind[0] == behind[1] and logits.shape == log_probs.shape)
        return logits.reshape(log_probs.shape) if same else None

    @torch.no_grad()
    def called(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        reach: Reach | None,
    ) -> None:
        """Take in a call of one of `WRITTEN`, and what it has returned; `reach` is the last activation's."""
        if not isinstance(result, Tensor) or not result.requires_grad or is_mapped(result):
            return
        x, *more = args or (kwargs.get("input"),)
        if not isinstance(x, Tensor):
            return
        if func in _SUBTRACT:
            self._subtracted(x, more[0] if more else kwargs.get("other"), result)
        elif func in _SQUARE or (func in _POWER and _is_two(more[0] if more else kwargs.get("exponent"))):
            self._distance("mse_loss", x, reach)
        elif func in _ABSOLUTE:
            self._distance("l1_loss", x, reach)
        elif func in _LOG_SOFTMAX:
            dim = more[0] if more else kwargs.get("dim")
            self._log_softmax = (place_of(result), x, dim) if isinstance(dim, int) and result.ndim else None
        elif func in _GATHER:
            given = dict(zip(("dim", "index"), more, strict=False)) | kwargs
            index = given.get("index")
            if isinstance(index, Tensor) and given.get("dim") in (-1, x.ndim - 1) and index.shape[-1:] == (1,):
                self._picked(x, index[..., 0])
        elif func is Tensor.__getitem__ and isinstance(more[0], tuple) and len(more[0]) == 2:
            rows, target = more[0]
            if x.ndim and isinstance(target, Tensor) and _counts_up(rows, len(x)):
                self._picked(x, target)

    def _subtracted(self, output: Tensor, target: Any, difference: Tensor) -> None:
        if not isinstance(target, Tensor):
            return
        if target.requires_grad:
            output, target = target, output
        if output.requires_grad and not target.requires_grad and target.is_floating_point() and target.numel() > 1:
            self._difference = ref(difference), output, target

    def _distance(self, kind: str, x: Tensor, reach: Reach | None) -> None:
        if self._difference is not None and self._difference[0]() is x:
            _, output, target = self._difference
            self._keep(loss_record(kind, output, target, reach=reach), x.numel(), len(x) if x.ndim else 1)

    def _picked(self, x: Tensor, target: Tensor) -> None:
        if target.dtype is not torch.int64 or target.shape != x.shape[:-1] or x.shape[-1] < 2 or not target.numel():
            return
        if bool(((target < 0) | (target >= x.shape[-1])).any()):  # counted from the end: no class
            return
        logits = self.logits_of(x, -1)
        x, target = x.detach().flatten(0, -2), target.reshape(-1)
        if logits is not None:
            self._keep(loss_record("cross_entropy", logits.flatten(0, -2), target), len(target), len(target))
            return
        if bool((x >= 0).all()):  # probabilities, of which the logarithm is taken afterwards
            x = x.log()
        record = loss_record("nll_loss", x, target)
        if record is not None and bool(record.values[5].isneginf()):  # logits, to be taken from their logsumexp
            record = loss_record("cross_entropy", x, target)
        self._keep(record, len(target), len(target))

    def _keep(self, record: LossRecord | None, elements: int, examples: int) -> None:
        if record is not None:  # a mean, or a sum over all or over each example; some take half of a square
            scales = {factor * scale for factor in (1.0, 0.5) for scale in (1, elements, elements / examples)}
            self._last = replace(record, scales=tuple(sorted(scales)))


def _is_two(exponent: Any) -> bool:
    return isinstance(exponent, int | float) and exponent == 2


def _counts_up(rows: Any, count: int) -> bool:
    """Whether these are the numbers of all rows in their order."""
    if isinstance(rows, Tensor):
        return rows.shape == (count,) and rows.dtype is torch.int64 and bool((rows.diff() == 1).all())
    return isinstance(rows, range | list) and len(rows) == count and list(rows) == list(range(count))
