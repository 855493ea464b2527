"""The doctor on anybody's LightningModule: what it says of sick networks, and its silence on healthy ones."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnlm.callbacks import ActivationMonitor, CriticalFindingError, Doctor, GradientMonitor, UpdateMonitor
from bnlm.doctor import Finding

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")

MakeTrainer = Callable[..., Trainer]
STEPS = 220


class Classifier(LightningModule):
    """Eight classes of 16 inputs, separable by a teacher; `sicken` makes it ill after it was built."""

    def __init__(
        self,
        activation: type[nn.Module] = nn.Tanh,
        sicken: Callable[[Classifier], None] | None = None,
        lr: float = 0.1,
        depth: int = 4,
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        sizes = [16, *[48] * depth]
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            linear = nn.Linear(fan_in, fan_out)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="tanh" if activation is nn.Tanh else "relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, activation()]
        self.net = nn.Sequential(*layers)
        self.head = nn.Linear(48, 8)
        self.lr = lr
        self.factor = 1.0
        if sicken is not None:
            sicken(self)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.factor * F.cross_entropy(self.head(self.net(batch[0])), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def data(shuffled_labels: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64 * STEPS, 16, generator=generator)
    y = (x @ torch.randn(16, 8, generator=generator)).argmax(1)
    if shuffled_labels:
        y = y[torch.randperm(len(y), generator=generator)]
    return DataLoader(TensorDataset(x, y), batch_size=64)


def diagnosed(make_trainer: MakeTrainer, model: LightningModule, **options: Any) -> list[Finding]:
    doctor = Doctor(every_n_steps=10, table=False, **options)
    make_trainer(callbacks=[doctor], max_steps=STEPS).fit(model, data())
    return doctor.findings


def rules(findings: list[Finding], least: str = "warning") -> list[str]:
    severe = ("warning", "critical") if least == "warning" else ("critical",)
    return [finding.rule for finding in findings if finding.severity in severe]


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
def test_healthy_networks_are_left_alone(activation: type[nn.Module], make_trainer: MakeTrainer) -> None:
    assert rules(diagnosed(make_trainer, Classifier(activation))) == []


def output_times_thirty(model: Classifier) -> None:
    model.head.weight.data *= 30


def wide_weights(model: Classifier) -> None:
    for module in model.net:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)


def tiny_weights(model: Classifier) -> None:
    for module in model.net:
        if isinstance(module, nn.Linear):
            module.weight.data *= 0.05


def dead(model: Classifier) -> None:
    for module in model.net:
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.bias, -8.0)


def constant(model: Classifier) -> None:
    for module in model.net:
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.weight, 0.1)


def nothing(model: Classifier) -> None:
    model.factor = float("nan")


def forgotten(model: Classifier) -> None:
    model.head.register_parameter("scale", nn.Parameter(torch.ones(3, 4)))


@pytest.mark.parametrize(
    ("sicken", "activation", "lr", "expected"),
    [
        (output_times_thirty, nn.Tanh, 0.01, "R02"),
        (wide_weights, nn.Tanh, 0.1, "R03"),
        (tiny_weights, nn.Tanh, 0.1, "R05"),
        (dead, nn.ReLU, 0.1, "R04"),
        (constant, nn.Tanh, 0.1, "R20"),
        (None, nn.Tanh, 30.0, "R09"),
        (None, nn.Tanh, 1e-5, "R10"),
        (nothing, nn.Tanh, 0.1, "R08"),
        (forgotten, nn.Tanh, 0.1, "R12"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_cause_comes_first(
    sicken: Callable[[Classifier], None] | None,
    activation: type[nn.Module],
    lr: float,
    expected: str,
    make_trainer: MakeTrainer,
) -> None:
    findings = diagnosed(make_trainer, Classifier(activation, sicken, lr))
    assert findings, "nothing found"
    assert findings[0].rule == expected
    assert findings[0].caused_by is None
    known = {finding.rule for finding in findings}
    assert all(finding.caused_by is None or finding.caused_by in known for finding in findings)


def test_what_a_finding_says(make_trainer: MakeTrainer) -> None:
    (first, *_) = diagnosed(make_trainer, Classifier(sicken=wide_weights))
    assert first.name == "saturated_activation"
    assert first.step == 0
    assert first.where == "net.1, net.3, net.5 and net.7"
    assert first.value > 0.5
    assert "std 0.99;" in first.message
    assert "0.42" in first.message  # 5/3 over the root of 16 inputs
    assert "init=kaiming_normal" in first.suggestion


def test_labels_without_meaning(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(every_n_steps=10, table=False)
    make_trainer(callbacks=[doctor], max_steps=STEPS).fit(Classifier(lr=0.02), data(shuffled_labels=True))
    assert "R13" in rules(doctor.findings, "critical")


class ByHand(Classifier):
    """The same by manual optimization; `training_step` returns nothing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


class NeverSteps(ByHand):
    """Forgets the one line that matters."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        self.manual_backward(Classifier.training_step(self, batch, batch_idx))


@pytest.mark.parametrize(("batches", "expected"), [(9, []), (10, ["R10"])])
def test_a_run_without_a_step(batches: int, expected: list[str], make_trainer: MakeTrainer) -> None:
    doctor = Doctor(table=False)
    trainer = make_trainer(callbacks=[doctor], max_epochs=1, max_steps=-1, limit_train_batches=batches)
    trainer.fit(NeverSteps(), data())
    assert rules(doctor.findings, "critical") == expected


class NeverZeroes(ByHand):
    """Forgets the other; or takes one step for two batches, rightly."""

    def __init__(self, every: int) -> None:
        super().__init__(lr=1e-3)
        self.every = every

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        self.manual_backward(Classifier.training_step(self, batch, batch_idx))
        if batch_idx % self.every == self.every - 1:
            self.optimizers().step()
            if self.every > 1:
                self.optimizers().zero_grad()


class ZeroesNothing(Classifier):
    def optimizer_zero_grad(self, *args: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (NeverZeroes(1), True),
        (NeverZeroes(2), False),
        (ByHand(), False),
        (ZeroesNothing(), True),
        (Classifier(), False),
    ],
)
def test_gradients_that_are_never_set_to_zero(module: Classifier, expected: bool, make_trainer: MakeTrainer) -> None:
    doctor = Doctor(table=False)
    make_trainer(callbacks=[doctor], max_steps=60).fit(module, data())
    assert ("zero_grad()" in "".join(f.suggestion for f in doctor.findings if f.rule == "R09")) == expected


class TwoOptimizers(Classifier):
    """Two optimizers by hand: of two parts of one network, or as of networks that are trained against each other."""

    def __init__(self, adversaries: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.adversaries = adversaries

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        for sign in (1, -1) if self.adversaries else (1,):
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(sign * loss)
        for optimizer in self.optimizers():
            optimizer.step()
        return loss

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(part.parameters(), lr=1e-3) for part in (self.net, self.head)]


def losses_of(make_trainer: MakeTrainer, model: LightningModule, **options: Any) -> list[float]:
    doctor = Doctor(every_n_steps=10, table=False)
    make_trainer(callbacks=[doctor], max_steps=12, **options).fit(model, data())
    assert doctor._history is not None
    return list(doctor._history.losses.last)


def test_the_losses_of_manual_optimization(make_trainer: MakeTrainer) -> None:
    assert losses_of(make_trainer, ByHand()) == losses_of(make_trainer, Classifier())
    assert len(losses_of(make_trainer, TwoOptimizers(adversaries=False))) == 6  # in each batch there are two steps
    assert losses_of(make_trainer, TwoOptimizers(adversaries=True)) == []


def test_a_step_of_accumulated_gradients_has_one_loss(make_trainer: MakeTrainer) -> None:
    single = losses_of(make_trainer, Classifier(lr=0.0))
    accumulated = losses_of(make_trainer, Classifier(lr=0.0), accumulate_grad_batches=3)
    assert len(single) == len(accumulated) == 12
    means = [sum(single[i : i + 3]) / 3 for i in range(0, 12, 3)]
    torch.testing.assert_close(torch.tensor(accumulated[:4]), torch.tensor(means), rtol=1e-6, atol=0)


def test_beside_the_monitors_it_finds_the_same(make_trainer: MakeTrainer) -> None:
    found = []
    for others in ([], [ActivationMonitor(20), GradientMonitor(20), UpdateMonitor(20)]):
        doctor = Doctor(every_n_steps=10, table=False)
        make_trainer(callbacks=[doctor, *others], max_steps=STEPS).fit(Classifier(sicken=wide_weights), data())
        found.append([(f.rule, f.severity, f.step, f.where) for f in doctor.findings])
    assert found[0] == found[1] != []


def test_what_is_left_behind(
    make_trainer: MakeTrainer, tmp_path: Path, events: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    doctor = Doctor(every_n_steps=10, folder=str(tmp_path))
    trainer = make_trainer(callbacks=[doctor], max_steps=STEPS)
    with caplog.at_level(logging.WARNING, "bnlm"):
        trainer.fit(Classifier(sicken=output_times_thirty, lr=0.01), data())
    written = json.loads((tmp_path / "findings.json").read_text())
    assert [finding["rule"] for finding in written] == [finding.rule for finding in doctor.findings]
    assert written[0]["name"] == "overconfident_output"
    assert written[1] | {"caused_by": "R02", "rule": "R01"} == written[1]
    assert len([line for line in caplog.messages if "R02" in line]) == 1
    (text,) = events(tmp_path / "run").Tensors("doctor/text_summary")
    assert "overconfident_output" in text.tensor_proto.string_val[0].decode()


def test_at_a_critical_finding(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(on_critical="stop", table=False)
    trainer = make_trainer(callbacks=[doctor], max_steps=STEPS)
    trainer.fit(Classifier(sicken=output_times_thirty), data())
    assert trainer.global_step < 5
    with pytest.raises(CriticalFindingError, match="R02 overconfident_output: before any training the logits"):
        make_trainer(callbacks=[Doctor(on_critical="raise")]).fit(Classifier(sicken=output_times_thirty), data())
    with pytest.raises(ValueError, match=r"diagnostics\.on_critical='explode': expected continue, stop or raise"):
        Doctor(on_critical="explode")


@pytest.mark.parametrize("doctor_first", [False, True])
def test_what_was_seen_is_written_before_the_doctor_ends_the_run(
    make_trainer: MakeTrainer, events: Callable[[Path], EventAccumulator], tmp_path: Path, doctor_first: bool
) -> None:
    callbacks = [GradientMonitor(1), Doctor(on_critical="raise")]
    trainer = make_trainer(callbacks=callbacks[::-1] if doctor_first else callbacks)
    with pytest.raises(CriticalFindingError):
        trainer.fit(Classifier(sicken=output_times_thirty), data())
    assert [event.step for event in events(tmp_path / "run").Scalars("gradient_norm/total")] == [0]


def test_a_batch_that_torch_refuses_is_diagnosed(make_trainer: MakeTrainer) -> None:
    model = Classifier(sicken=lambda m: m.net.insert(1, nn.BatchNorm1d(48)))
    doctor = Doctor(table=False)
    one_each = DataLoader(data().dataset, batch_size=1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        make_trainer(callbacks=[doctor], max_steps=10).fit(model, one_each)
    assert [(finding.rule, finding.severity) for finding in doctor.findings] == [("R16", "critical")]


class ThroughADistribution(Classifier):
    """One batch is nan, of which the next one's distribution speaks."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x = batch[0] / 0 * 0 if batch_idx == 25 else batch[0]
        torch.distributions.Categorical(logits=self.head(self.net(batch[0])), validate_args=True)
        return super().training_step([x, batch[1]], batch_idx)


def test_nan_that_a_distribution_refuses_is_diagnosed(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(every_n_steps=10, table=False)
    with pytest.raises(ValueError, match="invalid values"):
        make_trainer(callbacks=[doctor], max_steps=60).fit(ThroughADistribution(), data())
    assert rules(doctor.findings, "critical") == ["R08"]
    assert doctor.findings[0].where == "loss"  # which was nan before the error spoke of it


def test_findings_survive_a_checkpoint(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(table=False)
    make_trainer(callbacks=[doctor], max_steps=12).fit(Classifier(sicken=output_times_thirty), data())
    resumed = Doctor()
    resumed.load_state_dict(json.loads(json.dumps(doctor.state_dict())))
    assert resumed.findings == doctor.findings != []


class SignSteps(torch.optim.Optimizer):
    """Knows no learning rate."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": None, "weight_decay": None})

    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter -= 1e-3 * parameter.grad.sign()
        return loss


def test_an_optimizer_without_a_rate(make_trainer: MakeTrainer) -> None:
    class Signed(Classifier):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return SignSteps(self.parameters())

    doctor = Doctor(every_n_steps=10, table=False)
    make_trainer(callbacks=[doctor], max_steps=STEPS).fit(Signed(), data())
    assert rules(doctor.findings) == []


def test_a_gradient_that_is_the_same_everywhere_is_one(make_trainer: MakeTrainer) -> None:
    """Where all targets are far above the outputs, an absolute error has one slope for every bias of the output."""

    class FarTargets(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return F.l1_loss(self.head(self.net(batch[0])), torch.full((1, 8), 1000.0).expand(len(batch[1]), 8))

    doctor = Doctor(every_n_steps=10, table=False)
    make_trainer(callbacks=[doctor], max_steps=60).fit(FarTargets(), data())
    assert doctor._history is not None
    assert doctor._history.recent[-1].of("gradient_std")["head.bias"] == 0
    assert "R12" not in rules(doctor.findings)


@pytest.mark.parametrize(
    ("name", "other", "expected"),
    [
        ("val_loss", False, ["R15"]),
        ("val/ce", False, ["R15"]),  # no name of a loss: it is taken from the loss function
        (None, False, ["R15"]),
        (None, True, []),  # that of another loss function than training's
    ],
)
def test_a_validation_that_gets_worse(
    name: str | None, other: bool, expected: list[str], make_trainer: MakeTrainer
) -> None:
    class Overfitted(Classifier):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            logits, y = self.head(self.net(batch[0])), batch[1]
            if other:
                return F.mse_loss(logits, F.one_hot(y, 8).float())
            loss = F.cross_entropy(logits, y)
            if name is not None:
                self.log(name, loss)
            return loss

    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 16, generator=generator), torch.randint(8, (64,), generator=generator)
    train, val = (DataLoader(TensorDataset(x[h], y[h]), batch_size=8) for h in (slice(0, 32), slice(32, None)))
    doctor = Doctor(every_n_steps=10, table=False)
    trainer = make_trainer(callbacks=[doctor], max_steps=STEPS, limit_val_batches=1.0, check_val_every_n_epoch=10)
    trainer.fit(Overfitted(lr=0.3), train, val)
    assert rules(doctor.findings) == expected
    assert torch.overrides._get_current_function_mode_stack() == []


def test_a_factor_on_the_loss_that_is_trained_on_alone(make_trainer: MakeTrainer) -> None:
    """A hundred times as large a validation loss is the same one then."""

    class Weighted(Classifier):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * 0.01

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("val_loss", F.cross_entropy(self.head(self.net(batch[0])), batch[1]))

    doctor = Doctor(every_n_steps=10, table=False)
    trainer = make_trainer(callbacks=[doctor], max_steps=STEPS, limit_val_batches=4, val_check_interval=10)
    trainer.fit(Weighted(), data(), data())
    assert "R15" not in rules(doctor.findings)
    assert doctor._history is not None
    validation, train = doctor._history.validations[-1]
    assert 0.5 * train < validation < 2 * train


def test_a_second_run_knows_nothing_of_the_rate_of_the_first(make_trainer: MakeTrainer) -> None:
    doctor = Doctor(every_n_steps=10, table=False)
    for lr in (50.0, 0.1):
        make_trainer(callbacks=[doctor], max_steps=60).fit(Classifier(lr=lr), data())
    assert doctor._history is not None
    assert {o.lr_share for o in doctor._history.recent} == {1.0}
