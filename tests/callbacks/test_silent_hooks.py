"""On steps that are not observed, Lightning calls no more of the monitors than it has to."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.loops.optimization.automatic import Closure
from lightning.pytorch.profilers import Profiler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnlm.callbacks import ActivationMonitor, Doctor, GradientMonitor, UpdateMonitor


class Calls(Profiler):
    """Counts which hooks of which callbacks Lightning calls."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def start(self, action_name: str) -> None:
        if action_name.startswith("[Callback]"):
            name, hook = action_name.removeprefix("[Callback]").rsplit(".", 1)
            self.counted[f"{name.split('{')[0]}.{hook}"] += 1

    def stop(self, action_name: str) -> None:
        pass


class Small(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.model(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer_of(callbacks: list[Callback], folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_steps=options.pop("max_steps", 20),
        callbacks=callbacks,
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def batches() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(80, 4)), batch_size=4)


BATCH_HOOKS = (
    "on_train_batch_start on_before_zero_grad on_before_backward on_after_backward on_before_optimizer_step "
    "on_train_batch_end"
).split()


def of_batches(calls: Calls) -> dict[str, int]:
    return {name: count for name, count in calls.counted.items() if name.rsplit(".", 1)[1] in BATCH_HOOKS}


@pytest.mark.parametrize("doctor_first", [False, True])
def test_one_callback_hears_of_the_batches_for_all(tmp_path: Path, doctor_first: bool) -> None:
    monitors = [kind(every_n_steps=10) for kind in (ActivationMonitor, GradientMonitor, UpdateMonitor)]
    doctor = Doctor(every_n_steps=10, table=False)
    callbacks = [doctor, *monitors] if doctor_first else [*monitors, doctor]
    calls = Calls()
    trainer_of(callbacks, tmp_path, profiler=calls).fit(Small(), batches())
    heard = {name: n for name, n in of_batches(calls).items() if not name.startswith(("TQDM", "Model"))}
    assert heard == {
        "Doctor.on_train_batch_end": 4,  # of the steps 0 and 10, and before the next ones; the other losses it hears
        "Doctor.on_train_batch_start": 2,  # of the steps 0 and 10
        "Doctor.on_before_zero_grad": 2,
        "Doctor.on_after_backward": 2,
    }
    assert doctor._history is not None
    assert [o.step for o in doctor._history.recent] == [0, 10]


def test_without_a_doctor_the_last_monitor_hears(tmp_path: Path) -> None:
    calls = Calls()
    callbacks: list[Callback] = [ActivationMonitor(every_n_steps=10), UpdateMonitor(every_n_steps=5)]
    trainer_of(callbacks, tmp_path, profiler=calls).fit(Small(), batches())
    assert of_batches(calls) == {
        "UpdateMonitor.on_train_batch_end": 8,
        "UpdateMonitor.on_train_batch_start": 4,
        "UpdateMonitor.on_before_zero_grad": 4,
        "UpdateMonitor.on_after_backward": 4,
    }


def test_gradients_of_every_micro_batch_are_read(tmp_path: Path) -> None:
    calls = Calls()
    callbacks: list[Callback] = [GradientMonitor(every_n_steps=4)]
    trainer_of(callbacks, tmp_path, profiler=calls, accumulate_grad_batches=3, max_steps=6).fit(Small(), batches())
    assert of_batches(calls)["GradientMonitor.on_after_backward"] == 6  # three batches each of the steps 0 and 4


class Own(ActivationMonitor):
    """A user's monitor, with hooks of its own."""

    def __init__(self) -> None:
        super().__init__(every_n_steps=10)
        self.heard: Counter[str] = Counter()

    def on_before_zero_grad(self, *args: Any) -> None:
        self.heard["zero_grad"] += 1

    def on_after_backward(self, *args: Any) -> None:
        super().on_after_backward(*args)
        self.heard["backward"] += 1

    def on_train_batch_start(self, *args: Any) -> None:
        super().on_train_batch_start(*args)
        self.heard["start"] += 1


@pytest.mark.parametrize("last", [True, False])
def test_hooks_of_a_subclass_are_heard(tmp_path: Path, last: bool) -> None:
    own, other = Own(), GradientMonitor(every_n_steps=10)
    trainer_of([other, own] if last else [own, other], tmp_path).fit(Small(), batches())
    assert own.heard == {"zero_grad": 20, "backward": 20, "start": 20}


class Counting(Doctor):
    """A user's doctor, which counts batches."""

    ends = 0

    def on_train_batch_end(self, *args: Any) -> None:
        super().on_train_batch_end(*args)
        self.ends += 1


def test_the_end_of_every_batch_is_heard_by_a_subclass_of_the_doctor(tmp_path: Path) -> None:
    doctor = Counting(every_n_steps=10, table=False)
    trainer_of([doctor], tmp_path).fit(Small(), batches())
    assert doctor.ends == 20


class Loss(Callback):
    """Keeps each batch's loss, and asks for findings in the middle."""

    def __init__(self, doctor: Doctor) -> None:
        self.doctor = doctor
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if outputs:
            self.losses.append(outputs["loss"].item())
        if trainer.global_step in (5, 13):
            assert self.doctor.findings is not None


class Skipping(Small):
    """Skips some batches, two of them in a row."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:  # type: ignore[override]
        return None if batch_idx in (3, 6, 7, 19) else super().training_step(batch, batch_idx)


class InDict(Small):
    """Returns more than the loss."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> dict[str, Any]:  # type: ignore[override]
        return {"loss": super().training_step(batch, batch_idx), "more": batch_idx}


class Irregular(Small):
    """Takes only every second step, though Lightning counts each."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()


class Twice(torch.optim.SGD):
    """An optimizer whose step is one of its parent's with the same closure, so that hooks hear of both."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure=closure)


class StepInStep(Small):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        torch.optim.SGD(self.parameters(), lr=0.01)  # from now on the parent's step calls hooks, too
        return Twice(self.parameters(), lr=0.01)


class OnceMore(Small):
    """Calls its closure several times a step."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(self.parameters(), lr=0.01, max_iter=3)


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.")
@pytest.mark.parametrize("network", [Small, Skipping, InDict, Irregular, StepInStep, OnceMore])
@pytest.mark.parametrize("batches_an_epoch", [20, 7])
def test_no_loss_is_lost_on_batches_of_which_the_least_is_heard(
    tmp_path: Path, network: type[Small], batches_an_epoch: int
) -> None:
    doctor = Doctor(every_n_steps=10, table=False)
    loss = Loss(doctor)
    loader = DataLoader(TensorDataset(torch.randn(4 * batches_an_epoch, 4)), batch_size=4)
    trainer_of([doctor, loss], tmp_path, max_steps=24).fit(network(), loader)
    assert doctor._history is not None
    assert list(doctor._history.losses.last) == loss.losses
    assert [o.step for o in doctor._history.recent] == [0, 10, 20]


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_no_loss_is_lost_in_other_precisions(tmp_path: Path, precision: str) -> None:
    doctor = Doctor(every_n_steps=10, table=False)
    loss = Loss(doctor)
    loader = DataLoader(TensorDataset(torch.randn(80, 4).to(torch.float64 if "64" in precision else torch.float32)))
    trainer_of([doctor, loss], tmp_path, precision=precision).fit(Small(), loader)
    assert doctor._history is not None
    assert list(doctor._history.losses.last) == pytest.approx(loss.losses, rel=1e-6)
    assert len(loss.losses) == 20


class AnotherOptimizer(Callback):
    """Replaces the optimizer when the second epoch begins."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.optimizers = [torch.optim.AdamW(pl_module.parameters(), lr=1e-3)]


def test_the_optimizer_may_be_replaced_between_epochs(tmp_path: Path) -> None:
    doctor = Doctor(every_n_steps=10, table=False)
    loss = Loss(doctor)
    loader = DataLoader(TensorDataset(torch.randn(60, 4)), batch_size=4)  # 15 batches an epoch
    calls = Calls()
    trainer_of([doctor, AnotherOptimizer(), loss], tmp_path, max_steps=35, profiler=calls).fit(Small(), loader)
    # Of the steps 0, 9, 10; of 15 to 20, until the new one is listened to; and of 29 and 30.
    assert of_batches(calls)["Doctor.on_train_batch_end"] == 11
    assert doctor._history is not None
    assert list(doctor._history.losses.last) == loss.losses
    assert [o.step for o in doctor._history.recent] == [0, 10, 20, 30]


def test_where_the_closure_does_not_tell_the_loss_each_batch_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Lightning's closure holds is private to it, and may be elsewhere in another version."""
    with monkeypatch.context() as patched:
        for name in ("__init__", "closure", "consume_result", "__call__"):
            patched.setattr(Closure, name, vars(Elsewhere)[name])
        calls, doctor = Calls(), Doctor(every_n_steps=10, table=False)
        loss = Loss(doctor)
        trainer_of([doctor, loss], tmp_path, profiler=calls).fit(Small(), batches())
    assert of_batches(calls)["Doctor.on_train_batch_end"] == 20
    assert doctor._history is not None
    assert list(doctor._history.losses.last) == loss.losses


class Elsewhere:
    """Lightning's closure, which keeps its result under another name."""

    def __init__(self, step_fn: Any, backward_fn: Any = None, zero_grad_fn: Any = None) -> None:
        self._step_fn, self._backward_fn, self._zero_grad_fn = step_fn, backward_fn, zero_grad_fn
        self.kept: Any = None

    def closure(self, *args: Any, **kwargs: Any) -> Any:
        with torch.enable_grad():
            result = self._step_fn()
            self._zero_grad_fn()
            self._backward_fn(result.closure_loss)
        return result

    def consume_result(self) -> Any:
        return self.kept

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.kept = self.closure()
        return self.kept.loss


def test_accumulation_may_begin_in_the_middle(tmp_path: Path) -> None:
    """Lightning's scheduler changes it between epochs, while the doctor passes over batches."""
    doctor = Doctor(every_n_steps=10, table=False)
    loss = Loss(doctor)
    scheduler = GradientAccumulationScheduler({0: 1, 1: 2})
    loader = DataLoader(TensorDataset(torch.randn(60, 4)), batch_size=4)  # 15 batches an epoch
    trainer_of([doctor, loss, scheduler], tmp_path, max_steps=23).fit(Small(), loader)
    assert doctor._history is not None
    pairs = zip(loss.losses[15:-1:2], loss.losses[16:-1:2], strict=True)
    last = loss.losses[-1] * 2  # of an odd number of batches one is left: it is a step, of half its loss
    expected = [*loss.losses[:15], *(a + b for a, b in pairs), last]
    torch.testing.assert_close(
        torch.tensor(list(doctor._history.losses.last)), torch.tensor(expected), rtol=1e-6, atol=0
    )
    assert [o.step for o in doctor._history.recent] == [0, 10, 20]


class Wrapper(Callback):
    """Somebody's callback that calls a monitor's hooks itself."""

    def __init__(self, inner: Callback) -> None:
        self.inner = inner

    def setup(self, *args: Any, **kwargs: Any) -> None:
        self.inner.setup(*args, **kwargs)

    def on_train_start(self, *args: Any) -> None:
        self.inner.on_train_start(*args)

    def on_train_batch_start(self, *args: Any) -> None:
        self.inner.on_train_batch_start(*args)

    def on_after_backward(self, *args: Any) -> None:
        self.inner.on_after_backward(*args)

    def on_train_batch_end(self, *args: Any) -> None:
        self.inner.on_train_batch_end(*args)


def test_a_wrapped_monitor_works(tmp_path: Path) -> None:
    doctor = Doctor(every_n_steps=10, table=False)
    trainer_of([Wrapper(doctor)], tmp_path).fit(Small(), batches())
    assert doctor._history is not None
    assert [o.step for o in doctor._history.recent] == [0, 10]


def test_hooks_are_back_after_training(tmp_path: Path) -> None:
    monitors: list[Callback] = [ActivationMonitor(), GradientMonitor(), Doctor(table=False)]
    trainer = trainer_of(monitors, tmp_path)
    trainer.fit(Small(), batches())
    assert all(callable(getattr(m, hook)) for m in monitors for hook in BATCH_HOOKS)
    assert not trainer.optimizers[0]._optimizer_step_post_hooks
    calls = Calls()
    trainer_of(monitors[:1], tmp_path, profiler=calls).fit(Small(), batches())  # the same monitor, alone
    assert of_batches(calls)["ActivationMonitor.on_train_batch_end"] == 1  # no other step is due


def test_a_trainer_fits_again_without_the_callback_that_heard_for_all(tmp_path: Path) -> None:
    monitor, doctor = GradientMonitor(every_n_steps=10), Doctor(every_n_steps=10, table=False)
    trainer = trainer_of([monitor, doctor], tmp_path, profiler=(calls := Calls()))
    model = Small()
    trainer.fit(model, batches())
    trainer.callbacks.remove(doctor)  # type: ignore[attr-defined]
    calls.counted.clear()
    trainer.fit_loop.epoch_loop.max_steps = 40
    trainer.fit(model, batches())
    assert of_batches(calls)["GradientMonitor.on_after_backward"] == 2  # of the steps 20 and 30


def test_a_second_fit_is_observed_at_the_cadence_of_its_own_callbacks(tmp_path: Path) -> None:
    """What was due next in the first fit says nothing of the second."""
    rare, often = GradientMonitor(every_n_steps=1000), Doctor(every_n_steps=10, table=False)
    trainer = trainer_of([rare], tmp_path)
    model = Small()
    trainer.fit(model, batches())
    trainer.callbacks[trainer.callbacks.index(rare)] = often  # type: ignore[attr-defined]
    trainer.fit_loop.epoch_loop.max_steps = 40
    trainer.fit(model, batches())
    assert often._history is not None
    assert [o.step for o in often._history.recent] == [20, 30]
