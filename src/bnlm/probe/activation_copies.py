"""Copies of what activations return and of the gradients that come to it: kept, and reduced together later."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bnlm.probe.moment_table import MAX_WAITING, MomentTable, in_order
from bnlm.probe.plain_values import behind, copied
from bnlm.probe.records import StepRecord
from bnlm.probe.reduction import Seen, count
from bnlm.stats import histogram


class ActivationCopies:
    """Keeps copies until they are counted: on a small network calls are what costs, so they are made for many at once.

    Args:
        record: Where the results go.
        histograms: Also count histograms of outputs and their gradients.
        maps: Also keep which outputs of bounded activations are flat, `(examples, units)`.

    Attributes:
        table: Where the moments are reduced.
        waiting: Elements of copies that wait.
    """

    def __init__(self, record: StepRecord, histograms: bool, maps: bool) -> None:
        self.table = MomentTable()
        self.waiting = 0
        self._record = record
        self._histograms = histograms
        self._maps = maps
        self._seen: list[Seen] = []
        self._gradients: list[tuple[str, Tensor]] = []

    def add(
        self,
        layer: str,
        kind: str,
        pre_activation: Tensor | None,
        values: Tensor,
        mapped: int | None,
        channel_dim: int,
        limits: tuple[float, float] | None,
    ) -> None:
        """Keep a copy of the output of an activation; `pre_activation` is one already."""
        seen = copied(values, mapped, channel_dim)
        if self._histograms and layer not in self._record.kinds:
            self._record.histograms.setdefault("activations", {})[layer] = histogram(seen)
        self._record.kinds[layer] = kind
        channels = behind(channel_dim, mapped)
        self._seen.append(
            Seen(self._record, self.table, layer, kind, pre_activation, seen, channels, limits, self._maps)
        )
        self._wait(2 * seen.numel())

    def add_gradient(self, layer: str, gradient: Tensor, mapped: int | None, channel_dim: int) -> None:
        """Keep a copy of the gradient at that output."""
        seen = copied(gradient, mapped, channel_dim)
        if self._histograms:
            of_gradients = self._record.histograms.setdefault("activation_gradients", {})
            if layer not in of_gradients:
                of_gradients[layer] = histogram(seen)
        self._gradients.append((layer, seen))
        self._wait(seen.numel())

    def _wait(self, elements: int) -> None:
        """Leave what was copied for later, unless it is much."""
        self.waiting += elements
        if self.waiting > MAX_WAITING:
            count(self.uncounted())

    def uncounted(self) -> list[Seen]:
        """Hand over what waits to be counted; its moments are left to the table."""
        seen, gradients, self._seen, self._gradients, self.waiting = self._seen, self._gradients, [], [], 0
        self._to_be_reduced("output", [(each.layer, each.output) for each in seen])
        self._to_be_reduced("input", [(each.layer, each.input) for each in seen if each.input is not None])
        gradients.reverse()  # the last layer's came first
        self._to_be_reduced("output gradient", gradients)
        return seen

    def _to_be_reduced(self, group: str, copies: Sequence[tuple[str, Tensor]]) -> None:
        counts = [[copy.numel()] for _, copy in copies]
        self.table.add(group, [layer for layer, _ in copies], [copy for _, copy in copies], counts)

    def finish(self) -> None:
        """Reduce what waits, and put all results into the record, in the order of the forward pass."""
        count(self.uncounted())
        record = self._record
        record.responded = {layer: units for layer, units in record.responded.items() if units.numel()}
        record.sums = self.table.sums()
        for group in ("output gradient", "flat"):  # which came from the last layer on, or kind by kind
            if group in record.sums:
                record.sums[group] = in_order(record.sums[group], record.kinds)
        of_gradients = record.histograms.get("activation_gradients", {})
        if of_gradients:
            in_place = {layer: of_gradients[layer] for layer in record.kinds if layer in of_gradients}
            record.histograms["activation_gradients"] = in_place
