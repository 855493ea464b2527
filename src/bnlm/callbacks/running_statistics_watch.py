"""How far the running statistics of BatchNorms are from those of the first batches in validation."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from bnlm.doctor import StatisticsGap
from bnlm.probe.hand_written_norms import by_channel, statistics_of
from bnlm.probe.names import plain
from bnlm.stats import running_statistics_gap

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

#: Fewer values per channel say too little about running statistics; batches that may bring them.
VALUES_FOR_STATISTICS, MOST_BATCHES = 64, 4


class RunningStatisticsWatch:
    """Compares them in the forward pass of a batch, or of the first few where these are small.

    Attributes:
        gaps: By module path, what `stats.running_statistics_gap` returns.
        updates: By module path, how many batches the statistics have taken in.
    """

    def __init__(self) -> None:
        self.gaps: dict[str, tuple[float, float]] = {}
        self.updates: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self._waiting: dict[str, list[Tensor]] = {}  # values that are too few yet

    def attach(self, root: nn.Module, heard: Container[str]) -> None:
        """Start to look at every BatchNorm of `root` with running statistics; if written by hand, at what was heard."""
        for path, module in root.named_modules():
            known = isinstance(module, _BatchNorm) and module.running_mean is not None
            if known or (plain(path) in heard and statistics_of(module) is not None):
                self._handles.append(module.register_forward_pre_hook(self._compare(plain(path))))
                self._waiting[plain(path)] = []

    def take(self, momenta: Mapping[str, float | None], step: int) -> StatisticsGap | None:
        """Return the gap of the BatchNorm that strays most, None where none was compared; and forget all.

        Args:
            momenta: Of torch's BatchNorms by module path; what is not there is written by hand.
            step: Optimizer steps taken.
        """
        gaps, self.gaps = self.gaps, {}
        if not gaps:
            return None
        layer = max(gaps, key=lambda name: sum(gaps[name]))
        by_hand = layer not in momenta
        return StatisticsGap(layer, *gaps[layer], momenta.get(layer), step, self.updates.get(layer), by_hand)

    def batch_ends(self, index: int) -> None:
        """Stop looking where enough was seen, or this was the last batch that may bring it."""
        if not self._waiting or index + 1 >= MOST_BATCHES:
            self.detach()

    def detach(self) -> None:
        """Stop looking. May be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._waiting.clear()

    def _compare(self, path: str) -> Any:
        @torch.no_grad()
        def compare(module: nn.Module, args: tuple[Any, ...]) -> None:
            statistics = statistics_of(module)
            if statistics is None or not args or path not in self._waiting:  # of a keyword the values are not to be had
                return
            x = by_channel(args[0], len(statistics[0]), getattr(module, "channel_dim", 1))
            if x is None:
                return
            waiting = self._waiting[path]
            if sum(map(len, waiting)) + len(x) < VALUES_FOR_STATISTICS:
                waiting.append(x.clone())
            else:
                log_variance, mean = running_statistics_gap(*statistics, torch.cat([*waiting, x]) if waiting else x)
                del self._waiting[path]
                self.gaps[path] = float(log_variance), float(mean)
                if (updates := getattr(module, "num_batches_tracked", None)) is not None:
                    self.updates[path] = int(updates)

        return compare


def untouched(root: nn.Module) -> list[str]:
    """Return the module paths of BatchNorms that are to be trained and have taken in no batch, loaded or seen."""
    return [
        path
        for path, module in root.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and not is_lazy(module.running_mean)
        if module.num_batches_tracked is not None and not bool(module.num_batches_tracked.any())  # of all stacked
        if module.weight is not None and module.weight.requires_grad and not bool(module.running_mean.any())
    ]
