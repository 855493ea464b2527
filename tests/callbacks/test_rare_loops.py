"""Trainings that go another way than most: streams, skipped batches, closures, wrapped optimizers, two in turns."""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint
from torch import Tensor, nn
from torch.overrides import BaseTorchFunctionMode
from torch.utils.data import DataLoader, IterableDataset

from bnlm.callbacks import ActivationMonitor, Doctor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor

Scalars = dict[int, dict[str, float]]
Monitored = Callable[[Path], Scalars]
MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*returned `None`",
    "ignore:.*in eval mode",
    "ignore:.*IterableDataset",
    "ignore:.*no `val_dataloader`",
)


def drawn(count: int, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = [torch.randn(size, 4, generator=generator) for _ in range(count)]
    return [(each, (each @ torch.ones(4, 3)).argmax(1)) for each in x]


def loader(count: int) -> DataLoader:
    return DataLoader(drawn(count), batch_size=None)


class Classifier(LightningModule):
    """Two layers, whose tanh is a module."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stream(IterableDataset):
    """Ends, but has no length."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(drawn(40))


def test_the_length_of_a_stream_is_not_known(make_trainer: MakeTrainer) -> None:
    doctor, monitor = Doctor(10, table=False), ActivationMonitor(1, figures_every_n_steps=30)
    drawn_at: list[int] = []
    monitor.draw = lambda trainer, seen, statistics: drawn_at.append(seen.step)  # type: ignore[method-assign]
    make_trainer(callbacks=[doctor, monitor], max_epochs=1, max_steps=-1).fit(
        Classifier(), DataLoader(Stream(), batch_size=None)
    )
    assert doctor._history is not None
    assert doctor._history.total_steps == float("inf")
    assert drawn_at == [0, 30]


class Skips(Classifier):
    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return None if batch_idx == 0 else super().training_step(batch, batch_idx)


@pytest.mark.parametrize(("pattern", "matches"), [("net.1", True), ("other", False)])
def test_patterns_wait_for_the_first_forward(pattern: str, matches: bool, make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(callbacks=[ActivationMonitor(1, include=[pattern])], max_steps=4)
    if matches:
        trainer.fit(Skips(), loader(4))
    else:
        with pytest.raises(ValueError, match=r"'other' matches nothing. There are: net.1"):
            trainer.fit(Skips(), loader(4))


def test_patterns_are_those_of_this_network(make_trainer: MakeTrainer) -> None:
    monitor = ActivationMonitor(1, include=["net.1"])
    make_trainer(callbacks=[monitor], max_steps=2).fit(Classifier(), loader(2))
    other = Classifier()
    other.net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"'net.1' matches nothing. There are: net.2"):
        make_trainer(callbacks=[monitor], max_steps=2).fit(other, loader(2))


class FirstOutputs(Callback):
    """Keeps the std of what tanh returned in each batch's first forward."""

    def __init__(self, module: Classifier) -> None:
        self.seen: list[float] = []
        self._new = True
        module.net[1].register_forward_hook(self._keep)

    def on_train_batch_start(self, *args: Any) -> None:
        self._new = True

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if self._new:
            self._new = False
            self.seen.append(float(output.detach().double().std()))


class WithClosure(Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.05, max_iter=3)


def test_of_a_closure_the_first_forward_counts(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """Also once the modules alone are listened to, from the 21st step on."""
    module = WithClosure()
    first = FirstOutputs(module)
    make_trainer(callbacks=[ActivationMonitor(1), first], max_steps=26).fit(module, loader(26))
    written = monitored(tmp_path / "run")
    assert len(written) == 26
    for step, tags in written.items():
        assert tags["activation_std/net.1"] == pytest.approx(first.seen[step], rel=1e-5)


class Turns(LightningModule):
    """Two networks that are trained on alternate batches; what the other's gradients are is nobody's business."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.g, self.d = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))
        self.norms: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        of_g = batch_idx % 3 == 1
        optimizer, trained = self.optimizers()[0 if of_g else 1], self.g if of_g else self.d
        optimizer.zero_grad()
        self.manual_backward(self.d(self.g(batch[0])).square().mean())
        self.norms.append(float(torch.cat([p.grad.double().reshape(-1) for p in trained.parameters()]).norm()))
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.g.parameters(), 0.1), torch.optim.SGD(self.d.parameters(), 0.1)


def test_networks_that_are_trained_in_turns(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    module = Turns()
    callbacks = [GradientMonitor(1), UpdateMonitor(1)]
    make_trainer(callbacks=callbacks, max_steps=7).fit(module, loader(7))
    written = monitored(tmp_path / "run")
    assert len(written) == 7
    for step, tags in written.items():
        assert tags["gradient_norm/total"] == pytest.approx(module.norms[step], rel=1e-5)
        trained = "g" if step % 3 == 1 else "d"
        assert {tag.split("/")[1][0] for tag in tags if "total" not in tag} == {trained}


class Wrapper(torch.optim.Optimizer):
    """As many a Lookahead is written: without `super().__init__`."""

    def __init__(self, optimizer: torch.optim.Optimizer | None, parameters: list[nn.Parameter]) -> None:
        self.optimizer = optimizer
        self.param_groups = [{"params": parameters, "lr": 0.1}] if optimizer is None else optimizer.param_groups
        self.state = {} if optimizer is None else optimizer.state
        self.defaults = {"lr": 0.1}

    def step(self, closure: Any = None) -> Any:
        return closure() if self.optimizer is None else self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {}


class Wrapped(Classifier):
    def __init__(self, inner: bool) -> None:
        super().__init__()
        self.inner = inner

    def configure_optimizers(self) -> Any:
        parameters = list(self.parameters())
        return Wrapper(torch.optim.SGD(parameters, lr=0.1) if self.inner else None, parameters)


def test_a_wrapper_of_an_optimizer(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    callbacks = [GradientMonitor(1), UpdateMonitor(1), Doctor(1, table=False)]
    make_trainer(callbacks=callbacks, max_steps=4).fit(Wrapped(inner=True), loader(4))
    written = monitored(tmp_path / "run")
    assert len(written) == 4
    for tags in written.values():  # by SGD, an update is a tenth of the gradient
        ratio = 0.1 * tags["grad_to_data/net.0.weight"]
        assert 10 ** tags["update_to_data/net.0.weight"] == pytest.approx(ratio, rel=1e-4)


def test_a_wrapper_with_nothing_in_it(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match=r"Wrapper has not been set up as an optimizer of torch.*super\(\)\.__init__"):
        make_trainer(callbacks=[UpdateMonitor(1)], max_steps=4).fit(Wrapped(inner=False), loader(4))


def test_two_monitors_of_a_kind(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    module = Classifier()
    module.net.append(nn.ReLU())
    monitors = [ActivationMonitor(1, include=["net.1"]), ActivationMonitor(2, exclude=["net.1"])]
    make_trainer(callbacks=[*monitors, ModelCheckpoint(tmp_path / "kept")], max_steps=4, enable_checkpointing=True).fit(
        module, loader(4)
    )
    written = monitored(tmp_path / "run")
    layers = {step: {tag.split("/")[1] for tag in tags} for step, tags in written.items()}
    assert layers == {0: {"net.1", "net.3"}, 1: {"net.1"}, 2: {"net.1", "net.3"}, 3: {"net.1"}}
    state = torch.load(next((tmp_path / "kept").glob("*.ckpt")), weights_only=True)["callbacks"]
    assert sum(key.startswith("ActivationMonitor") for key in state) == 2


class SparseGradients(Classifier):
    """Its own `optimizer_zero_grad` leaves gradients, which are sparse."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4, sparse=sparse)
        self.parts = self.embedding  # what the optimizer holds first

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return F.cross_entropy(self.net(self.embedding(batch[1])), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([*self.embedding.parameters(), *self.net.parameters()], lr=0.1)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        pass


def test_sparse_gradients_that_nobody_sets_to_zero(make_trainer: MakeTrainer) -> None:
    found = []
    for sparse in (False, True):
        doctor = Doctor(10, table=False)
        make_trainer(callbacks=[doctor], max_steps=150).fit(SparseGradients(sparse), loader(150))
        found.append([(f.rule, f.severity, f.step) for f in doctor.findings])
    assert found[0] == found[1] != []


class Phase(Classifier):
    """A complex parameter, whose gradient comes with its conjugation still to be done."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.randn(4, dtype=torch.complex64))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return F.cross_entropy(self.net((self.phase.conj() * batch[0]).real), batch[1])


def test_a_complex_parameter(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    callbacks = [GradientMonitor(1), UpdateMonitor(1), Doctor(1, table=False)]
    make_trainer(callbacks=callbacks, max_steps=3).fit(Phase(), loader(3))
    for tags in monitored(tmp_path / "run").values():
        ratio = 0.1 * tags["grad_to_data/phase"]
        assert 10 ** tags["update_to_data/phase"] == pytest.approx(ratio, rel=1e-4)


class InnerLoop(Classifier):
    """As meta-learning does, each step runs a copy of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[weakref.ref[nn.Module]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        clone = copy.deepcopy(self.net)
        self.copies.append(weakref.ref(clone))
        F.cross_entropy(clone(batch[0]), batch[1]).backward()
        return super().training_step(batch, batch_idx)


class CopiesAlive(Callback):
    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.count = sum(ref() is not None for ref in pl_module.copies)


@pytest.mark.parametrize("kind", [ActivationMonitor, GradientMonitor, UpdateMonitor, Doctor])
def test_copies_of_a_network_are_let_go(kind: type[Monitor], make_trainer: MakeTrainer) -> None:
    alive = CopiesAlive()
    make_trainer(callbacks=[kind(1), alive], max_steps=30).fit(InnerLoop(), loader(30))
    assert alive.count <= 1


class OwnMode(Callback):
    """Comes after the monitors and surrounds the rest of each batch with a mode of its own."""

    def on_train_batch_start(self, *args: Any) -> None:
        self.mode = BaseTorchFunctionMode()
        self.mode.__enter__()

    def on_train_batch_end(self, *args: Any) -> None:
        self.mode.__exit__(None, None, None)


def test_a_mode_of_somebody_else_on_top(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    make_trainer(callbacks=[ActivationMonitor(1), OwnMode()], max_steps=5).fit(Classifier(), loader(5))
    assert len(monitored(tmp_path / "run")) == 5  # and nothing is left behind, as after each test


@pytest.mark.filterwarnings("ignore:.*ckpt_path.*", "ignore:.*mid-epoch.*", "ignore:.*resuming from a checkpoint.*")
def test_a_checkpoint_within_an_observed_step(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    """While gradients are accumulated the step that is observed is still to come: nothing is forgotten."""

    class Saves(Callback):
        def on_train_batch_end(
            self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if batch_idx == 17:  # the second of four
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    class Sees(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
            self.seen = sum(map(len, monitors[1]._history.values())), len(monitors[0].dead_units.state_dict()["net.1"])

    monitors: list[Any] = [ActivationMonitor(1), UpdateMonitor(1)]
    options = {"accumulate_grad_batches": 4, "max_steps": 8}
    make_trainer(callbacks=[*monitors, Saves()], **options).fit(Classifier(), loader(40))
    saved = torch.load(tmp_path / "within.ckpt", weights_only=False)
    assert saved["callbacks"]["UpdateMonitor"]["last_step"] == saved["global_step"] == 4
    monitors, sees = [ActivationMonitor(1), UpdateMonitor(1)], Sees()
    make_trainer(callbacks=[*monitors, sees], **options).fit(
        Classifier(), loader(40), ckpt_path=str(tmp_path / "within.ckpt"), weights_only=False
    )
    assert min(sees.seen) > 0


@pytest.mark.parametrize("given", [["net.*"], {"net.*": 1.5}, {"net.*": True}])
@pytest.mark.parametrize("kind", [ActivationMonitor, Doctor])
def test_channel_dims_that_are_none(kind: Callable[..., Monitor], given: Any) -> None:
    with pytest.raises(ValueError, match=r"channel_dims=.*expected a dimension by pattern"):
        kind(channel_dims=given)


def test_channel_dims_are_told(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """Of the examples one has all outputs on the flat part: a unit, if examples are told to be units."""
    batches = drawn(1, size=5)
    batches[0][0][2] *= 1e6
    make_trainer(callbacks=[ActivationMonitor(1, channel_dims={"net.1": 0})], max_steps=1).fit(
        Classifier(), DataLoader(batches, batch_size=None)
    )
    assert monitored(tmp_path / "run")[0]["dead_units/net.1"] == pytest.approx(1 / 5)


def test_channel_dims_of_no_layer(make_trainer: MakeTrainer) -> None:
    with pytest.raises(ValueError, match=r"channel_dims=\{'other': 0\}.*matches nothing. There are: net.1"):
        make_trainer(callbacks=[ActivationMonitor(1, channel_dims={"other": 0})]).fit(Classifier(), loader(1))


def test_channel_dims_that_contradict_each_other(make_trainer: MakeTrainer) -> None:
    callbacks = [ActivationMonitor(1, channel_dims={"net.1": 0}), Doctor(1, channel_dims={"net.1": 1})]
    with pytest.raises(ValueError, match=r"two callbacks say different things of 'net.1': 0 and 1"):
        make_trainer(callbacks=callbacks).fit(Classifier(), loader(1))


@pytest.mark.parametrize(
    ("options", "steps"), [({"max_steps": 1000, "max_epochs": 3}, 24), ({"max_steps": 20, "max_epochs": 3}, 20)]
)
def test_the_last_figures(options: dict[str, int], steps: int, make_trainer: MakeTrainer) -> None:
    monitor, drawn_at = ActivationMonitor(3), []
    monitor.draw = lambda trainer, seen, statistics: drawn_at.append(seen.step)  # type: ignore[method-assign]
    trainer = make_trainer(callbacks=[monitor], **options)
    trainer.fit(Classifier(), loader(8))
    assert trainer.global_step == steps
    assert drawn_at == [0, (steps - 1) // 3 * 3]


class Validated(Classifier):
    """Its weights are far too large, and its validation loss is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].weight.data *= 100

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]) * 100)


def of_file(folder: Path) -> list[str]:
    return [finding["rule"] for finding in json.loads((folder / "findings.json").read_text())]


def test_a_validation_of_its_own_is_none_of_the_run(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    doctor = Doctor(5, table=False, folder=str(tmp_path))
    trainer = make_trainer(callbacks=[doctor], max_steps=60, limit_val_batches=2)
    module = Validated()
    trainer.fit(module, loader(60), loader(4))
    assert doctor._history is not None
    validations = list(doctor._history.validations)
    assert validations
    found = [finding.to_dict() for finding in doctor.findings]
    trainer.validate(module, loader(4), verbose=False)
    assert doctor._history.validations == validations
    assert [finding.to_dict() for finding in doctor.findings] == found
    assert [f["rule"] for f in found] == of_file(tmp_path)


class LooksAt(Callback):
    """Calls `look` when so many steps have been taken."""

    def __init__(self, step: int, look: Callable[[], None]) -> None:
        self.step, self.look = step, look

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            self.look()


def test_findings_are_in_the_file_as_they_come(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    early: list[list[str]] = []
    doctor = Doctor(5, table=False, folder=str(tmp_path))
    looks = LooksAt(20, lambda: early.append(of_file(tmp_path)))
    make_trainer(callbacks=[doctor, looks], max_steps=40).fit(Validated(), loader(40))
    assert "R03" in early[0]


def test_an_error_before_training_leaves_what_an_earlier_run_found(make_trainer: MakeTrainer, tmp_path: Path) -> None:
    make_trainer(callbacks=[Doctor(5, table=False, folder=str(tmp_path))], max_steps=40).fit(Validated(), loader(40))
    before = of_file(tmp_path)

    class Fails(Validated):
        def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_trainer(
            callbacks=[Doctor(5, table=False, folder=str(tmp_path))], num_sanity_val_steps=1, limit_val_batches=1
        ).fit(Fails(), loader(4), loader(4))
    assert of_file(tmp_path) == before != []


def test_a_folder_that_cannot_be_written(
    make_trainer: MakeTrainer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    doctor = Doctor(5, table=False, folder=str(tmp_path / "file" / "folder"))
    make_trainer(callbacks=[doctor], max_steps=10).fit(Validated(), loader(10))
    assert doctor.findings
    assert "could not be written" in caplog.text


class FineTuned(Classifier):
    """Its head alone is in the optimizer at first."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return F.cross_entropy(self.net(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.net.parameters(), lr=0.1)


class Unfreezes(BaseFinetuning):
    """Lightning's freezing leaves normalizations as they are; they join the optimizer with the rest."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone, train_bn=False)
        for parameter in pl_module.backbone[1].parameters():
            parameter.requires_grad = True

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.backbone, optimizer, lr=0.01, train_bn=True)


@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist")
def test_normalizations_that_join_the_optimizer_later(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(10, table=False)
    make_trainer(callbacks=[doctor, Unfreezes()], max_epochs=2).fit(FineTuned(), loader(60))
    assert [f.severity for f in doctor.findings if f.rule == "R12"] == ["note"]


def test_a_folder_in_a_store(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(5, table=False, folder="memory://runs/a")
    make_trainer(callbacks=[doctor], max_steps=10).fit(Validated(), loader(10))
    with get_filesystem("memory://runs/a").open("memory://runs/a/findings.json") as file:
        assert [finding["rule"] for finding in json.load(file)] == [finding.rule for finding in doctor.findings] != []


def test_findings_asked_for_from_another_thread(
    make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path
) -> None:
    doctor, over, errors = Doctor(1, table=False), Event(), []

    def ask() -> None:
        while not over.is_set():
            try:
                _ = doctor.findings
            except Exception as error:
                errors.append(error)

    asking = Thread(target=ask)
    asking.start()
    try:
        make_trainer(callbacks=[doctor, ActivationMonitor(1)], max_steps=300).fit(Classifier(), loader(300))
    finally:
        over.set()
        asking.join()
    assert errors == []
    assert list(monitored(tmp_path / "run")) == [*range(300)]
