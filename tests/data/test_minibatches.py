import math
import random

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from bnlm.data import EvaluationBatches, Minibatches, minibatch_indices
from bnlm.data.minibatches import BLOCK


def examples(n: int, context: int = 3) -> tuple[Tensor, Tensor]:
    """Contexts whose every number tells which example it is of, and targets that do so too."""
    return torch.arange(n * context).view(n, context), torch.arange(n)


class Counter:
    """Stands for the trainer: counts optimizer steps."""

    def __init__(self, step: int = 0) -> None:
        self.step = step

    def __call__(self) -> int:
        return self.step


def chunks(counter: Counter, **changes: int) -> Minibatches:
    settings = {"batch_size": 4, "steps_per_batch": 5, "seed": 7, "max_steps": -1} | changes
    return Minibatches(*examples(97), current_step=counter, **settings)


def run(counter: Counter, until: int, **changes: int) -> list[Tensor]:
    """Train like Lightning, epoch after epoch; return the targets of every optimizer step."""
    seen: list[Tensor] = []
    while counter.step < until:
        for _, targets in chunks(counter, max_steps=until, **changes):
            seen.extend(targets)
            counter.step += len(targets)
    return seen


def test_indices_follow_the_documented_formula() -> None:
    for block in (0, 3):
        seed = random.Random(f"11/2/{block}").getrandbits(32)
        expected = torch.randint(97, (BLOCK, 4), generator=torch.Generator().manual_seed(seed))
        assert_close(minibatch_indices(97, 4, block * BLOCK, (block + 1) * BLOCK, 11, 2), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (523, 530), (BLOCK - 3, BLOCK + 4), (0, 3 * BLOCK), (9, 9)])
def test_any_range_is_a_part_of_the_same_stream(start: int, stop: int) -> None:
    stream = minibatch_indices(97, 4, 0, 3 * BLOCK, 7)
    indices = minibatch_indices(97, 4, start, stop, 7)
    assert indices.shape == (stop - start, 4)
    assert_close(indices, stream[start:stop], rtol=0, atol=0)


def test_changing_the_result_does_not_change_the_stream() -> None:
    first = minibatch_indices(97, 4, 0, 6, 7)
    expected = first.clone()
    first.zero_()
    assert_close(minibatch_indices(97, 4, 0, 6, 7), expected, rtol=0, atol=0)


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    minibatch_indices(90, 4, 0, 6, 1234)
    assert_close(torch.rand(2), expected, rtol=0, atol=0)


def test_seeds_ranks_and_blocks_differ() -> None:
    streams = [minibatch_indices(97, 4, 0, BLOCK, seed, rank) for seed in (0, 1, 12) for rank in (0, 1, 2)]
    streams.append(minibatch_indices(97, 4, BLOCK, 2 * BLOCK, 0))
    for i, one in enumerate(streams):
        for other in streams[:i]:
            # equal by chance at 1 of 97 places: 42 of 4096, standard deviation 6.5
            assert (one == other).sum().item() < 42 + 6 * 6.5


def test_draws_are_uniform() -> None:
    n = 50
    draws = minibatch_indices(n, 32, 0, 4 * BLOCK, 5)
    counts = torch.bincount(draws.flatten(), minlength=n).double()
    expected = draws.numel() / n
    chi_squared = ((counts - expected) ** 2 / expected).sum().item()
    # chi-squared with 49 degrees of freedom: mean 49, standard deviation sqrt(98); too even is suspicious as well
    assert abs(chi_squared - 49) < 4 * math.sqrt(98)
    assert draws.min() == 0
    assert draws.max() == n - 1


def test_chunk_shapes_and_pairs() -> None:
    for contexts, targets in chunks(Counter()):
        assert contexts.shape == (5, 4, 3)
        assert targets.shape == (5, 4)
        assert_close(contexts, 3 * targets[..., None] + torch.arange(3), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("batch_size", "steps_per_batch", "world_size", "length"),
    [(4, 5, 1, 5), (4, 5, 2, 3), (4, 25, 1, 1), (4, 24, 1, 2), (97, 1, 1, 1), (1, 1, 1, 97), (200, 50, 1, 1)],
)
def test_an_epoch_is_one_pass(batch_size: int, steps_per_batch: int, world_size: int, length: int) -> None:
    loader = chunks(Counter(), batch_size=batch_size, steps_per_batch=steps_per_batch, world_size=world_size)
    assert len(loader) == length  # ceil(ceil(97 / (batch_size * world_size)) / steps_per_batch)
    assert len(list(loader)) == length


@pytest.mark.parametrize("steps_per_batch", [1, 3, 5, 50, 2000])
def test_any_chunking_gives_the_same_minibatches(steps_per_batch: int) -> None:
    seen = run(Counter(), until=1100, steps_per_batch=steps_per_batch)
    assert_close(torch.stack(seen), minibatch_indices(97, 4, 0, 1100, 7), rtol=0, atol=0)


def test_resuming_at_any_step_continues_the_straight_run() -> None:
    straight = run(Counter(), until=1100)
    resumed = run(Counter(523), until=1100)
    assert len(resumed) == 1100 - 523
    assert_close(torch.stack(resumed), torch.stack(straight[523:]), rtol=0, atol=0)


def test_chunks_end_on_the_grid_and_at_max_steps() -> None:
    counter, ends = Counter(523), []
    while counter.step < 542:
        for _, targets in chunks(counter, max_steps=542):
            counter.step += len(targets)
            ends.append(counter.step)
    assert ends == [525, 530, 535, 540, 542]


def test_nothing_comes_after_max_steps() -> None:
    assert list(chunks(Counter(10), max_steps=10)) == []
    assert list(chunks(Counter(), max_steps=0)) == []


def test_nothing_is_drawn_ahead() -> None:
    counter = Counter()
    batches = iter(chunks(counter))
    next(batches)
    counter.step = 742  # as if the run were elsewhere by now
    assert_close(next(batches)[1], minibatch_indices(97, 4, 742, 745, 7), rtol=0, atol=0)


def test_ranks_draw_their_own() -> None:
    (_, first), (_, second) = next(iter(chunks(Counter(), rank=0))), next(iter(chunks(Counter(), rank=1)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("value", [0, -4, True, 2.0, "4"])
@pytest.mark.parametrize("name", ["batch_size", "steps_per_batch"])
def test_bad_sizes(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r}: expected a whole number of at least 1"):
        chunks(Counter(), **{name: value})


def test_examples_that_do_not_match() -> None:
    contexts, targets = examples(10)
    for pair in ((contexts, targets[:9]), (contexts[:0], targets[:0])):
        with pytest.raises(ValueError, match="expected equal numbers, at least 1"):
            Minibatches(*pair, batch_size=4, steps_per_batch=5, seed=0, current_step=Counter())
    with pytest.raises(ValueError, match="10 contexts, 9 targets: expected equal numbers"):
        EvaluationBatches(contexts, targets[:9], 4)
    with pytest.raises(ValueError, match=r"data\.eval_batch_size=0: expected a whole number"):
        EvaluationBatches(contexts, targets, 0)


@pytest.mark.parametrize(("n", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (0, [])])
def test_evaluation_goes_through_once_in_order(n: int, sizes: list[int]) -> None:
    loader = EvaluationBatches(*examples(n), 4)
    batches = list(loader)
    assert len(loader) == len(batches)
    assert [len(targets) for _, targets in batches] == sizes
    assert [i for _, targets in batches for i in targets.tolist()] == list(range(n))
    for contexts, targets in batches:
        assert_close(contexts, 3 * targets[:, None] + torch.arange(3), rtol=0, atol=0)
    assert len(list(loader)) == len(sizes)  # a second time


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("n", [2, 9, 10, 11, 12, 13, 97])
def test_evaluation_over_ranks(n: int, world_size: int, batch_size: int) -> None:
    loaders = [EvaluationBatches(*examples(n), batch_size, rank, world_size) for rank in range(world_size)]
    seen = []
    for rank, loader in enumerate(loaders):
        batches = [targets for _, targets in loader]
        assert len(batches) == len(loader)
        assert all(0 < len(batch) <= batch_size for batch in batches)
        share = [i for batch in batches for i in batch.tolist()]
        assert share == list(range(rank, n, world_size))
        seen += share
    assert sorted(seen) == list(range(n))
    if batch_size > 1 and n >= world_size:
        assert len({len(loader) for loader in loaders}) == 1
