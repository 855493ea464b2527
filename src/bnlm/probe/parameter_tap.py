"""Takes in the parameters of one step: their gradients, what they are before it, and how far it moves them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from bnlm.probe.moment_table import Flat, MomentTable, Sums, joined_copy
from bnlm.probe.names import Names
from bnlm.probe.plain_values import real
from bnlm.stats import histogram, moment_sums_of


class ParameterTap:
    """Fills the groups `gradient`, `data` and `update` of a table; what reads is to be called where no graph is built.

    Args:
        names: Of the network.
        table: Where the sums go.
        histograms: Also count histograms of the gradients.
    """

    def __init__(self, names: Names, table: MomentTable, histograms: bool) -> None:
        self.names = names
        self.table = table
        self.shapes: dict[str, torch.Size] = {}
        self.histograms: dict[str, Tensor] | None = {} if histograms else None
        self._graded: dict[str, nn.Parameter] = {}
        self._stepped: dict[str, nn.Parameter] = {}
        self._before: tuple[list[str], list[nn.Parameter], Flat | list[Tensor]] | None = None

    def read_gradients(self, optimizers: Sequence[Optimizer]) -> None:
        """Take in the gradients as they are now, in place of what was read of them before."""
        named, parameters = self.names.trained_by(optimizers)
        self._forget(named)  # one without may have had one from another backward pass
        graded = [(name, p, g) for name, p in zip(named, parameters, strict=True) if (g := p.grad) is not None]
        names = [name for name, _, _ in graded]
        gradients = [real(g) for _, _, g in graded]
        self._graded.update([(name, p) for name, p, _ in graded])
        self.table.add_all("gradient", names, gradients)
        if self.histograms is not None:
            self.histograms |= {name: histogram(g) for name, g in zip(names, gradients, strict=True)}

    def _forget(self, names: Sequence[str]) -> None:
        """Drop the gradients of these."""
        if any(name in self._graded for name in names):
            self.table.forget("gradient", names)
            for name in names:
                self._graded.pop(name, None)
                if self.histograms is not None:
                    self.histograms.pop(name, None)

    def read_data(self, optimizer: Optimizer, moves: bool) -> None:
        """Take in the parameters before their step; with `moves` keep a copy, to see how far the step moves them."""
        names, parameters = self.names.trained_by([optimizer])
        if any(map(is_lazy, parameters)):  # there is nothing before the first forward, which a closure brings
            known = [(name, p) for name, p in zip(names, parameters, strict=True) if not is_lazy(p)]
            names, parameters = [name for name, _ in known], [p for _, p in known]
        if not names:
            return
        self._stepped.update(zip(names, parameters, strict=True))
        data = _all_real(parameters)
        if not moves:
            self.table.add_all("data", names, data)
            return
        copy = joined_copy(data)
        if copy is not None:
            self.table.add("data", names, [copy.values], [copy.counts])
            self._before = names, parameters, copy
        else:
            copies = [x.clone() for x in data]
            self.table.add_sums("data", Sums(names, moment_sums_of(copies)))
            self._before = names, parameters, copies

    def read_updates(self) -> None:
        """Take in how far the parameters are from what they were."""
        if self._before is None:
            return
        names, parameters, before = self._before
        data = _all_real(parameters)
        self._before = None
        if isinstance(before, Flat):
            if before.values.dtype in (torch.float32, torch.float64):
                after = joined_copy(data, before.counts)
                assert after is not None
                self.table.add("update", names, [after.values.sub_(before.values)], [after.counts])
                return
            before = list(before.values.split(before.counts))  # bfloat16 would round small steps away
        after_each = [x.reshape(b.shape) for x, b in zip(data, before, strict=True)]
        self.table.add_sums("update", Sums(names, moment_sums_of(after_each, minus=before)))

    def finish(self, waiting: Sequence[Optimizer]) -> None:
        """Take in the parameters with a gradient of optimizers that did not step: a scaler (fp16) held them back.

        Unless others did: then these had no turn, and their gradients are old, or came by the way.
        """
        if self._stepped:
            named, _ = self.names.trained_by(waiting)
            self._forget([name for name in named if name not in self._stepped])
        left = {name: p for name, p in self._graded.items() if name not in self._stepped}
        if left:
            with torch.no_grad():
                self.table.add_all("data", list(left), _all_real(list(left.values())))
        self.shapes = {name: p.shape for name, p in (*self._stepped.items(), *left.items())}


def _all_real(parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    # One question for all, since hardly ever one is complex.
    return [real(p) for p in parameters] if any(map(torch.is_complex, parameters)) else parameters
