"""Sums over the processes of a distributed run, through which gradients flow."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def group_to_join(process_group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    """Return the group whose processes share their statistics: ``process_group``, or all processes where it is None.

    None if this process has nobody to share with: torch.distributed is missing or not initialised, or one process.
    """
    if not dist.is_available() or not dist.is_initialized():
        return None
    group = dist.group.WORLD if process_group is None else process_group
    return group if dist.get_world_size(group) > 1 else None


def sum_over_ranks(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return the sum of every rank's ``x`` (all of one shape), the same on all of them; ``x`` itself without a group.

    Its gradient is again a sum over the ranks: each rank's ``x`` acts on the loss of every rank.
    """
    return x if group is None else _SumOverRanks.apply(x, group)


def rows_of_ranks(row: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Return every rank's ``row`` (k,) as ``(ranks, k)``, the same on all of them.

    An all-reduce of a table with one row filled: unlike all_gather into one tensor, every backend has it.
    """
    if group is None:
        return row.unsqueeze(0)
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    table = torch.nn.functional.pad(row.unsqueeze(0), (0, 0, rank, ranks - 1 - rank))
    return sum_over_ranks(table, group)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, dist.ProcessGroup], output: Tensor) -> None:
        ctx.group = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return sum_over_ranks(grad, ctx.group), None
