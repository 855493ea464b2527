"""The statistics of one observed step from all processes: each has seen a part of the batch."""

import torch

from bnlm.probe import StepRecord, in_order
from bnlm.stats import pooled_by_owner

#: What differs between processes; gradients (after their reduction) and parameters are equal on all of them.
_OF_ACTIVATIONS = ("output", "input", "output gradient", "flat")


def pool_over_ranks(record: StepRecord, world_size: int) -> None:
    """Pool the activation statistics over all processes, of the layers that each has seen."""
    _keep_what_all_have(record, world_size)
    pooled = [record.sums[g] for g in _OF_ACTIVATIONS if g in record.sums]
    parts = [*(p.sums for p in pooled), *record.responded.values()]
    if not sum(t.numel() for t in parts):
        return
    joined = torch.cat([t.to(parts[0].dtype).reshape(-1) for t in parts])
    of_ranks = [torch.empty_like(joined) for _ in range(world_size)]
    torch.distributed.all_gather(of_ranks, joined)
    split = [iter(of_rank.split([t.numel() for t in parts])) for of_rank in of_ranks]
    for each in pooled:
        rows = torch.cat([next(of_rank).reshape(-1, 3) for of_rank in split])
        each.sums = pooled_by_owner(rows, [*range(len(each.names))] * world_size, len(each.names))
    record.responded = {layer: torch.stack([next(of_rank) for of_rank in split]).any(0) for layer in record.responded}


def _keep_what_all_have(record: StepRecord, world_size: int) -> None:
    """Leave out what a process lacks, which may have gone another way through its batch, and put all in one order."""
    mine = {group: dict.fromkeys(record.sums[group].names, 3) for group in _OF_ACTIVATIONS if group in record.sums}
    mine["responded"] = {name: len(units) for name, units in record.responded.items()}
    everyone: list[dict[str, dict[str, int]]] = [{}] * world_size
    torch.distributed.all_gather_object(everyone, mine)

    def common(group: str) -> list[str]:
        first = everyone[0].get(group, {})
        return [name for name in first if all(each.get(group, {}).get(name) == first[name] for each in everyone)]

    for group in _OF_ACTIVATIONS:
        if group in record.sums:
            record.sums[group] = in_order(record.sums[group], common(group))
    record.kinds = {layer: record.kinds[layer] for layer in common("output")}
    record.responded = {layer: record.responded[layer] for layer in common("responded")}
    # What is drawn is of this process alone, but of no layer that the others lack.
    record.maps = {layer: units for layer, units in record.maps.items() if layer in record.kinds}
    for group in ("activations", "activation_gradients"):
        if group in record.histograms:
            counted = record.histograms[group].items()
            record.histograms[group] = {layer: counts for layer, counts in counted if layer in record.kinds}
