"""Minibatches for training, drawn as a pure function of the step, and slices for evaluation."""

import math
import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bnlm.data.checks import check_whole_number

BLOCK = 1024  # optimizer steps whose indices are drawn at once


def minibatch_indices(
    n: int, batch_size: int, start: int, stop: int, seed: int | tuple[int, ...], rank: int = 0
) -> Tensor:
    """Return which of `n` examples the optimizer steps `start` to `stop - 1` train on, `(stop - start, batch_size)`.

    Examples are drawn with replacement, as in the lecture. The stream of indices is cut into blocks of `BLOCK` steps,
    each with a generator of its own that is seeded by (seed, rank, block). So what a step draws depends on its number
    alone: not on where the run began or on how many steps are drawn together. A run resumes with the step number as
    its whole sampling state, and nothing that was drawn ahead can be lost.

    With several seeds `(stop - start, seeds, batch_size)`: those that each seed has alone.

    Returns:
        int64 on the CPU, whatever the device of the examples: the draws are the same everywhere.
    """
    rows = [torch.empty((0, *([len(seed)] if isinstance(seed, tuple) else []), batch_size), dtype=torch.int64)]
    for block in range(start // BLOCK, math.ceil(stop / BLOCK)):
        first = block * BLOCK
        rows.append(_draw_block(n, batch_size, seed, rank, block)[max(start - first, 0) : stop - first])
    return torch.cat(rows)  # a copy: the cached block stays as drawn


@lru_cache(maxsize=2)  # a run passes through one block many times, a chunk touches two where they meet
def _draw_block(n: int, batch_size: int, seed: int | tuple[int, ...], rank: int, block: int) -> Tensor:
    """Return the indices of the steps of one block, `(BLOCK, batch_size)` or `(BLOCK, seeds, batch_size)`."""
    if isinstance(seed, tuple):
        return torch.stack([_draw(n, batch_size, each, rank, block) for each in seed], dim=1)
    return _draw(n, batch_size, seed, rank, block)


def _draw(n: int, batch_size: int, seed: int, rank: int, block: int) -> Tensor:
    # a string seed goes through SHA-512, so neighbouring seeds, ranks and blocks have unrelated generators
    generator = torch.Generator().manual_seed(random.Random(f"{seed}/{rank}/{block}").getrandbits(32))
    return torch.randint(n, (BLOCK, batch_size), generator=generator)


class Minibatches:
    """Training batches for Lightning, each a chunk of the minibatches of up to `steps_per_batch` optimizer steps.

    Each chunk is drawn when it is asked for, from the optimizer step that comes next, and ends at the next multiple of
    `steps_per_batch` (or at `max_steps`): chunks lie on a fixed grid whatever step a run resumes at. An epoch is one
    pass over the examples (as many draws as there are examples), rounded up to whole chunks.

    Args:
        contexts: `(N, context)`, of any whole-number type; batches are on its device.
        targets: `(N,)`; of sequences `(N, context)`.
        batch_size: Examples a minibatch, on each rank.
        steps_per_batch: Minibatches a chunk.
        seed: Of the draws; of networks that are trained at once a tuple, with a seed for each. Batches are
            `(steps, seeds, batch_size, ...)` then.
        current_step: Returns the number of optimizer steps taken so far.
        max_steps: Optimizer steps of the run; -1 for no end.
        rank: Of this process; each draws its own minibatches.
        world_size: Number of processes.
    Raises:
        ValueError: If there is no example, the two tensors have not the same number of them, or a number is not valid.
    """

    def __init__(
        self,
        contexts: Tensor,
        targets: Tensor,
        *,
        batch_size: int,
        steps_per_batch: int,
        seed: int | tuple[int, ...],
        current_step: Callable[[], int],
        max_steps: int = -1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not 0 < len(contexts) == len(targets):
            raise ValueError(f"{len(contexts)} contexts, {len(targets)} targets: expected equal numbers, at least 1.")
        self.contexts = contexts
        self.targets = targets
        self.batch_size = check_whole_number("data.batch_size", batch_size, 1)
        self.steps_per_batch = check_whole_number("steps_per_batch", steps_per_batch, 1)
        self.seed = seed
        self.current_step = current_step
        self.max_steps = max_steps
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Return the number of chunks in an epoch."""
        steps = math.ceil(len(self.targets) / (self.batch_size * self.world_size))
        return math.ceil(steps / self.steps_per_batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield contexts `(steps, batch_size, context)` and targets `(steps, batch_size)`, int64.

        Targets of sequences are `(steps, batch_size, context)`.
        """
        for _ in range(len(self)):
            start = self.current_step()
            stop = (start // self.steps_per_batch + 1) * self.steps_per_batch
            if self.max_steps >= 0:
                stop = min(stop, self.max_steps)
            if stop <= start:
                return
            drawn = minibatch_indices(len(self.targets), self.batch_size, start, stop, self.seed, self.rank)
            indices = drawn.to(self.targets.device)
            yield self.contexts[indices].long(), self.targets[indices].long()

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the step, which Lightning keeps, is the whole state.

        It is here because Lightning warns, on resuming within an epoch, of loaders that cannot be resumed; a loader
        with these two methods can.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` returned; there is nothing to restore."""


class EvaluationBatches:
    """All examples once, in order, in slices of `batch_size`; of several ranks, each has every `world_size`-th example.

    Every rank has the same number of slices, because DistributedDataParallel exchanges buffers in each forward and
    would wait for ever for a rank that has one slice less. (Only if a rank has fewer examples than slices, that is
    with slices of 1 or fewer examples than ranks, does it have fewer.)

    Args:
        contexts: `(N, context)`, of any whole-number type.
        targets: `(N,)`; of sequences `(N, context)`.
        batch_size: Examples a slice, at most.
        rank: Of this process.
        world_size: Number of processes.
    Raises:
        ValueError: If the tensors have not the same number of examples, or `batch_size` is not valid.
    """

    def __init__(self, contexts: Tensor, targets: Tensor, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        if len(contexts) != len(targets):
            raise ValueError(f"{len(contexts)} contexts, {len(targets)} targets: expected equal numbers.")
        self.batch_size = check_whole_number("data.eval_batch_size", batch_size, 1)
        self.contexts = contexts[rank::world_size]
        self.targets = targets[rank::world_size]
        largest_share = math.ceil(len(targets) / world_size)
        self._slices = min(math.ceil(largest_share / batch_size), len(self.targets))

    def __len__(self) -> int:
        """Return the number of slices of this rank."""
        return self._slices

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield contexts `(batch, context)` and targets `(batch,)` (of sequences `(batch, context)`), int64."""
        n = len(self.targets)
        # a share that fills one slice less than the largest one keeps an example back for the last slice
        cuts = [min(i * self.batch_size, n - (self._slices - i)) for i in range(self._slices)] + [n]
        for start, stop in pairwise(cuts):
            yield self.contexts[start:stop].long(), self.targets[start:stop].long()
