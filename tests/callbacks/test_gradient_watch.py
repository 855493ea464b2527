"""Who has a gradient between the observed steps, and who has none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnlm.callbacks import Doctor
from bnlm.callbacks.gradient_watch import MOST_LOOKS, GradientWatch

MakeTrainer = Callable[..., pl.Trainer]


class Tasks(pl.LightningModule):
    """Heads that are trained in turns, each in every tenth step; the last one never, if so wanted."""

    def __init__(self, heads: int, forgotten: bool = False) -> None:
        super().__init__()
        self.trunk = nn.Linear(9, 30)
        self.heads = nn.ModuleList(nn.Linear(30, 4) for _ in range(heads))
        self.used = heads - forgotten

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, target = batch
        return F.cross_entropy(self.heads[batch_idx % self.used](torch.relu(self.trunk(x))), target)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def data() -> DataLoader[Any]:
    torch.manual_seed(0)
    x = torch.randn(8000, 9)
    return DataLoader(TensorDataset(x, (x[:, :4] + x[:, 4:8]).argmax(1)), batch_size=16)


@pytest.mark.parametrize(("heads", "forgotten", "expected"), [(5, False, []), (3, True, ["heads.2.weight"])])
@pytest.mark.parametrize("every", [10, 100])
def test_heads_that_take_turns(
    heads: int, forgotten: bool, expected: list[str], every: int, make_trainer: MakeTrainer
) -> None:
    """The doctor looks at every tenth step, at which it is always the first head's turn."""
    doctor = Doctor(every_n_steps=every, table=False)
    module = Tasks(heads, forgotten)
    make_trainer(callbacks=[doctor], max_steps=450).fit(module, data())
    found = [f for f in doctor.findings if f.rule in ("R12", "R11", "R10")]
    assert [f.where.split(" and ")[0] for f in found] == expected
    assert not any(p._post_accumulate_grad_hooks for p in module.parameters())


def test_only_what_comes_between_is_heard() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    watch = GradientWatch()
    assert watch.follow(net, ["0.weight", "1.weight"]) == ["0.weight", "1.weight"]
    net[1](torch.ones(2, 3)).sum().backward()
    assert watch.take() == {"1.weight"}
    assert watch.take() == set()
    assert watch.follow(net, ["0.weight"]) == []  # and the other no longer
    net(torch.ones(2, 3)).sum().backward()
    assert watch.take() == {"0.weight"}
    watch.follow(net, [])
    net(torch.ones(2, 3)).sum().backward()
    assert watch.take() == set()


def test_gradients_of_zero_are_none_and_soon_not_looked_at() -> None:
    layer = nn.Linear(3, 3)
    watch = GradientWatch()
    watch.follow(layer, ["weight", "of a module that is gone"])
    for _ in range(MOST_LOOKS):
        (0 * layer(torch.ones(2, 3))).sum().backward()
    assert watch.take() == set()
    layer(torch.ones(2, 3)).sum().backward()
    assert watch.take() == set()
    assert layer.weight._post_accumulate_grad_hooks
    assert watch.follow(layer, ["weight"]) == []
    assert not layer.weight._post_accumulate_grad_hooks  # it is called no more


def test_a_sparse_gradient_is_heard() -> None:
    embedding = nn.Embedding(5, 3, sparse=True)
    watch = GradientWatch()
    watch.follow(embedding, ["weight"])
    embedding(torch.tensor([1, 2])).sum().backward()
    assert watch.take() == {"weight"}
