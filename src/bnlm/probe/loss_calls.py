"""Hears the calls of loss functions in a step, and those of which a loss is written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bnlm.probe.cosines import LastProduct
from bnlm.probe.loss_record import REGRESSIONS, LossRecord, loss_record
from bnlm.probe.reach import Reach
from bnlm.probe.written_loss import WrittenLoss

#: Options of loss functions that change what a call tells.
OPTIONS = ("ignore_index", "beta", "delta", "weight", "pos_weight")


class LossCalls:
    """The losses of a step: all of the first forward that has any, since further micro-batches bring the same again.

    Attributes:
        reach: Of the last activation, whose output may be what is compared with the targets.
        product: That logits may come from.
    """

    def __init__(self) -> None:
        self.reach: Reach | None = None
        self.product = LastProduct()
        self._records: list[LossRecord] = []
        self._written = WrittenLoss()
        self._complete = False

    def next_forward(self) -> None:
        """Another forward begins."""
        self._complete = bool(self._records)
        self.product.forget()
        self._written.next_forward()

    def called(self, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take in a call of a loss function."""
        if self._complete:
            return
        names = ("input", "target") if kind in REGRESSIONS else ("input", "target", "weight")
        given = dict(zip(names, args, strict=False)) | kwargs
        x = given["input"]
        if kind == "nll_loss" and (logits := self._written.logits_of(x, min(1, x.ndim - 1))) is not None:
            kind, x = "cross_entropy", logits
        more = {name: given[name] for name in OPTIONS if given.get(name) is not None}
        record = loss_record(kind, x, given["target"], reach=self.reach, **more)
        if record is None:
            return
        if (cosines := self.product.makes_cosines()) is not None:
            record.values[3] = torch.where(cosines, torch.nan, record.values[3])
        self._records.append(record)

    def part_called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Take in a call of one of `written_loss.WRITTEN`, and what it has returned."""
        self._written.called(func, args, kwargs, output, self.reach)

    def records(self) -> list[LossRecord]:
        """Return what was heard, or without any such call what a written loss tells; to be called once, at the end."""
        written = self._written.record()
        return self._records or ([written] if written is not None else [])
