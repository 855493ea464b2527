"""How far the running statistics of BatchNorms are from those of a batch in validation."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from bnlm.probe.hand_written_norms import by_channel, statistics_of
from bnlm.probe.names import plain
from bnlm.stats import running_statistics_gap

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

#: A batch in validation with fewer values per channel says too little about running statistics.
VALUES_FOR_STATISTICS = 64


class RunningStatisticsWatch:
    """Compares them in the forward pass of one batch, between `attach` and `detach`.

    Attributes:
        gaps: By module path, what `stats.running_statistics_gap` returns.
        updates: By module path, how many batches the statistics have taken in.
    """

    def __init__(self) -> None:
        self.gaps: dict[str, tuple[float, float]] = {}
        self.updates: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []

    def attach(self, root: nn.Module, heard: Container[str]) -> None:
        """Start to look at every BatchNorm of `root` with running statistics; if written by hand, at what was heard."""
        for path, module in root.named_modules():
            known = isinstance(module, _BatchNorm) and module.running_mean is not None
            if known or (plain(path) in heard and statistics_of(module) is not None):
                self._handles.append(module.register_forward_pre_hook(self._compare(plain(path))))

    def detach(self) -> None:
        """Stop looking. May be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _compare(self, path: str) -> Any:
        @torch.no_grad()
        def compare(module: nn.Module, args: tuple[Any, ...]) -> None:
            statistics = statistics_of(module)
            if statistics is None or not args:  # called with a keyword: its values are not to be had here
                return
            x = by_channel(args[0], len(statistics[0]), getattr(module, "channel_dim", 1))
            if x is not None and len(x) >= VALUES_FOR_STATISTICS:
                log_variance, mean = running_statistics_gap(*statistics, x)
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
