"""Which steps are observed, that nothing happens on the others, and that a run can fail, go on and be repeated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnlm.callbacks import ActivationMonitor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor
from bnlm.data.minibatches import Minibatches
from bnlm.language_model import LanguageModel
from bnlm.models import MLP

Monitored = Callable[[Path], dict[int, dict[str, float]]]
Leftovers = Callable[..., list[str]]
MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`", "ignore:.*does not have many workers")


def all_three(**options: Any) -> list[Monitor]:
    options = {"figures_every_n_steps": None} | options  # drawing takes longer than these runs
    return [ActivationMonitor(**options), GradientMonitor(**options), UpdateMonitor(**options)]


class Watched(nn.Module):
    """A small language model that notes at each forward what hangs on it."""

    def __init__(self, leftovers: Leftovers) -> None:
        super().__init__()
        self.inner = MLP(7, 3, 4, [6, 5])
        self.leftovers = leftovers
        self.observed: list[bool] = []

    def forward(self, idx: Tensor) -> Tensor:
        self.observed.append(bool(self.leftovers(self)))
        return self.inner(idx)


def fit(trainer: Trainer, network: nn.Module, steps_per_batch: int = 1, **options: Any) -> LanguageModel:
    generator = torch.Generator().manual_seed(0)
    model = LanguageModel(network, 7, lambda p: torch.optim.AdamW(p, lr=0.01))
    batches = Minibatches(
        torch.randint(7, (500, 3), generator=generator),
        torch.randint(7, (500,), generator=generator),
        batch_size=10,
        steps_per_batch=steps_per_batch,
        seed=3,
        current_step=lambda: trainer.global_step,
        max_steps=trainer.max_steps,
    )
    trainer.fit(model, train_dataloaders=batches, **options)
    return model


@pytest.mark.parametrize(
    ("every", "steps_per_batch", "steps", "expected"),
    [
        (100, 50, 250, [0, 100, 200]),
        (30, 10, 100, [0, 30, 60, 90]),
        (30, 50, 250, [0, 50, 100, 150, 200]),  # a batch's first step at or after each multiple
        (70, 50, 250, [0, 100, 150]),
        (1, 1, 4, [0, 1, 2, 3]),
    ],
)
def test_only_sampled_steps_are_touched(
    every: int,
    steps_per_batch: int,
    steps: int,
    expected: list[int],
    make_trainer: MakeTrainer,
    monitored: Monitored,
    leftovers: Leftovers,
    tmp_path: Path,
) -> None:
    network = Watched(leftovers)
    fit(make_trainer(callbacks=all_three(every_n_steps=every), max_steps=steps), network, steps_per_batch)
    assert len(network.observed) == steps
    assert [step for step, observed in enumerate(network.observed) if observed] == expected
    assert list(monitored(tmp_path / "run")) == expected


def test_gradients_and_updates_need_no_hook_on_modules(make_trainer: MakeTrainer, leftovers: Leftovers) -> None:
    network = Watched(leftovers)
    fit(make_trainer(callbacks=[GradientMonitor(1, None, None), UpdateMonitor(1, None, None)], max_steps=3), network)
    assert network.observed == [False] * 3


def test_monitors_with_cadences_of_their_own(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    callbacks = [ActivationMonitor(6, None, None), GradientMonitor(4, None, None), UpdateMonitor(3, None, None)]
    fit(make_trainer(callbacks=callbacks, max_steps=13), MLP(7, 3, 4, [6]))
    written = monitored(tmp_path / "run")
    for statistic, every in (("activation_std", 6), ("gradient_std", 4), ("update_to_data", 3)):
        steps = [step for step, tags in written.items() if any(tag.startswith(statistic) for tag in tags)]
        assert sorted(steps) == list(range(0, 13, every))


def test_weights_are_the_same_with_and_without_monitors(make_trainer: MakeTrainer) -> None:
    weights = []
    for callbacks in ([], all_three(every_n_steps=2, histograms_every_n_steps=4, figures_every_n_steps=8)):
        torch.manual_seed(0)
        model = fit(make_trainer(callbacks=callbacks, max_steps=10), MLP(7, 3, 4, [6, 5]))
        weights.append(torch.cat([p.reshape(-1) for p in model.parameters()]))
    assert weights[0].equal(weights[1])


class Classifier(LightningModule):
    """A user's module with calls for activations; may fail at a step, before or after its tanh."""

    def __init__(self, fail_at: int = -1, where: str = "") -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.fail_at, self.where = fail_at, where
        self.validated = 0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.training and self.global_step == self.fail_at and self.where == "forward":
            raise RuntimeError("failed in forward")
        return self.second(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        if self.global_step == self.fail_at and self.where == "backward":
            loss.register_hook(self._fail)
        return loss

    def _fail(self, gradient: Tensor) -> None:
        raise RuntimeError("failed in backward")

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self(1000 * batch[0])
        self.validated += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def batches(count: int = 12, size: int = 8) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    drawn = [
        [torch.randn(size, 4, generator=generator), torch.randint(3, (size,), generator=generator)]
        for _ in range(count)
    ]
    return DataLoader(drawn, batch_size=None)


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_after_an_exception_the_callbacks_fit_again(
    where: str, make_trainer: MakeTrainer, monitored: Monitored, leftovers: Leftovers, tmp_path: Path
) -> None:
    callbacks = all_three(every_n_steps=2)
    model = Classifier(fail_at=4, where=where)
    trainer = make_trainer("failed", callbacks=callbacks, max_steps=8)
    with pytest.raises(RuntimeError, match=f"failed in {where}"):
        trainer.fit(model, batches())
    assert leftovers(model) == []
    (optimizer,) = trainer.optimizers
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    torch.manual_seed(2)
    make_trainer("again", callbacks=callbacks, max_steps=8).fit(Classifier(), batches())
    torch.manual_seed(2)
    make_trainer("fresh", callbacks=all_three(every_n_steps=2), max_steps=8).fit(Classifier(), batches())
    assert list(monitored(tmp_path / "failed")) == [0, 2]
    again = monitored(tmp_path / "again")
    assert list(again) == [0, 2, 4, 6]
    assert again == monitored(tmp_path / "fresh")


def test_ctrl_c_takes_everything_off(make_trainer: MakeTrainer, leftovers: Leftovers) -> None:
    class Interrupted(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            self(batch[0])
            raise KeyboardInterrupt

    model = Interrupted()
    with pytest.raises(SystemExit):
        make_trainer(callbacks=all_three(every_n_steps=1), max_steps=8).fit(model, batches())
    assert leftovers(model) == []


def test_a_further_fit_of_the_same_trainer_goes_on(
    make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=all_three(every_n_steps=4), max_steps=6)
    model = Classifier()
    trainer.fit(model, batches())
    trainer.fit_loop.epoch_loop.max_steps = 14
    trainer.fit(model, batches())
    assert list(monitored(tmp_path / "run")) == [0, 4, 8, 12]


def test_a_new_run_forgets_the_one_before(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """Units that responded in the first run are dead in the second, whose weights are others."""
    activations, updates = ActivationMonitor(1, None, None), UpdateMonitor(1, None, None)
    for name, shift in (("alive", 0.0), ("dead", 50.0)):
        model = Classifier()
        with torch.no_grad():
            model.first.bias.fill_(shift)  # a tanh that never leaves its flat end
        make_trainer(name, callbacks=[activations, updates], max_steps=3).fit(model, batches())
    assert monitored(tmp_path / "alive")[2]["dead_units/tanh"] == 0
    assert monitored(tmp_path / "dead")[2]["dead_units/tanh"] == 1
    assert [step for step, _ in updates.state_dict()["history"]["second.weight"]] == [0, 1, 2]


def test_validation_is_not_observed(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """Not even in the middle of an observed step whose gradients are accumulated."""
    options = {"val_check_interval": 1, "limit_val_batches": 2, "accumulate_grad_batches": 4, "max_steps": 2}
    for name, limit in (("with", 2), ("without", 0)):
        torch.manual_seed(0)
        model = Classifier()
        trainer = make_trainer(name, callbacks=all_three(every_n_steps=1), **(options | {"limit_val_batches": limit}))
        trainer.fit(model, batches(), batches(3))
        assert model.validated == 8 * limit
    assert monitored(tmp_path / "with") == monitored(tmp_path / "without")


def test_a_resumed_run_writes_what_a_straight_one_writes(
    make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path
) -> None:
    options = {"every_n_steps": 3, "figures_every_n_steps": 9}
    torch.manual_seed(0)
    straight = all_three(**options)
    fit(make_trainer("straight", callbacks=straight, max_steps=24), MLP(7, 3, 4, [6], "relu"), 2)
    torch.manual_seed(0)
    first = make_trainer("first", callbacks=all_three(**options), max_steps=10)
    fit(first, MLP(7, 3, 4, [6], "relu"), 2)
    first.save_checkpoint(tmp_path / "middle.ckpt")
    torch.load(tmp_path / "middle.ckpt", weights_only=True)
    resumed = all_three(**options)
    rest = make_trainer("rest", callbacks=resumed, max_steps=24)
    fit(rest, MLP(7, 3, 4, [6], "relu"), 2, ckpt_path=tmp_path / "middle.ckpt", weights_only=True)
    pieces = monitored(tmp_path / "first") | monitored(tmp_path / "rest")
    assert list(pieces) == [0, 4, 6, 10, 12, 16, 18, 22]
    assert pieces == monitored(tmp_path / "straight")
    assert resumed[2].state_dict() == straight[2].state_dict()
    for layer, (silent, watched) in straight[0].state_dict()["silent"].items():
        assert resumed[0].state_dict()["silent"][layer][0].equal(silent)
        assert resumed[0].state_dict()["silent"][layer][1] == watched
