"""The doctor on modules that do what few do: lazy weights, optimizers of their own, losses of zero, no loss at all."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnlm.callbacks import ActivationMonitor, Doctor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor
from bnlm.doctor import Finding

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:Lazy modules are a new feature",
    "ignore:.*returned `None`",
)

MakeTrainer = Callable[..., Trainer]


def data(classes: int = 5) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32 * 40, 20, generator=generator)
    return DataLoader(TensorDataset(x, (x @ torch.randn(20, classes, generator=generator)).argmax(1)), batch_size=32)


def network(outputs: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, outputs))


class Module(LightningModule):
    """Learns by `loss`, called with what `net` returns and the targets."""

    def __init__(self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy) -> None:
        super().__init__()
        self.net, self.loss = net, loss

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
        return self.loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def run(make_trainer: MakeTrainer) -> Callable[..., list[Finding]]:
    def run(module: LightningModule, steps: int = 120, every_n_steps: int = 10, **options: Any) -> list[Finding]:
        doctor = Doctor(every_n_steps, table=False)
        make_trainer(**{"callbacks": [doctor], "max_steps": steps, **options}).fit(module, data())
        return doctor.findings

    return run


Run = Callable[..., list[Finding]]


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: F.cross_entropy(z, y) * 0,
        lambda z, y: F.mse_loss(z * 0, torch.zeros_like(z)),
        lambda z, y: F.cross_entropy(z[:, :1], y * 0),
    ],
)
def test_a_first_loss_of_zero(run: Run, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert "R12" in {finding.rule for finding in run(Module(network(), loss))}


def test_an_infinite_loss(run: Run) -> None:
    assert "R08" in {f.rule for f in run(Module(network(1), lambda z, y: F.mse_loss(z[:, 0], y + 1e30)), 320)}


@pytest.mark.parametrize(
    ("outputs", "loss", "what"),
    [
        (1, lambda z, y: F.cross_entropy(z, y * 0), "over a single class"),
        (1, lambda z, y: F.binary_cross_entropy(z.softmax(1)[:, 0], (y > 2).float()), "a softmax over a single output"),
    ],
)
def test_a_softmax_over_one_output(run: Run, outputs: int, loss: Callable[[Tensor, Tensor], Tensor], what: str) -> None:
    findings = run(Module(network(outputs), loss))
    assert findings[0].rule == "R13"
    assert what in findings[0].message
    assert {f.caused_by for f in findings[1:] if f.rule in ("R01", "R12")} == {"R13"}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", [Doctor, ActivationMonitor, GradientMonitor, UpdateMonitor])
def test_lazy_modules(make_trainer: MakeTrainer, kind: type[Monitor], norm: bool) -> None:
    def trained(callbacks: list[Monitor]) -> nn.Module:
        torch.manual_seed(0)
        norms = [nn.LazyBatchNorm1d()] if norm else []
        net = nn.Sequential(nn.LazyLinear(32), *norms, nn.ReLU(), nn.LazyLinear(5))
        make_trainer(callbacks=callbacks, max_steps=30).fit(Module(net), data())
        return net

    callback = kind(10)
    watched, plain = trained([callback]), trained([])
    torch.testing.assert_close(watched.state_dict(), plain.state_dict(), rtol=0, atol=0)
    if isinstance(callback, Doctor):
        assert [finding.rule for finding in callback.findings] == (["R19"] if norm else [])


def test_an_optimizer_that_lightning_does_not_know(run: Run) -> None:
    class Own(Module):
        def __init__(self, moves: bool) -> None:
            super().__init__(network())
            self.automatic_optimization = False
            self.own = torch.optim.SGD(self.parameters(), lr=0.1 if moves else 0.0)

        def configure_optimizers(self) -> None:
            return None

        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.own.zero_grad()
            self.loss(self.net(batch[0]), batch[1]).backward()
            self.own.step()

    for moves, severity, what in ((True, "note", "the weights have moved"), (False, "critical", "nothing has changed")):
        (finding,) = run(Own(moves), -1, max_epochs=2)
        assert (finding.rule, finding.severity) == ("R10", severity)
        assert what in finding.message


def test_a_training_step_that_returns_nothing(run: Run) -> None:
    class Forgets(Module):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.loss(self.net(batch[0]), batch[1])

    first = run(Forgets(network()))[0]
    assert first.rule == "R12"
    assert first.suggestion.startswith("Return the loss from training_step")


def test_what_a_loss_function_refuses_is_told_by_it(run: Run) -> None:
    with pytest.raises(IndexError, match="out of bounds") as raised:
        run(Module(network(3)))
    assert raised.traceback[-1].name == "cross_entropy"


def test_a_tensor_that_is_no_parameter(run: Run) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.randn(20, 32).mul(0.2).requires_grad_()
            self.out = nn.Linear(32, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(x @ self.weight))

    first = run(Module(Own()))[0]
    assert (first.rule, first.where) == ("R12", "net.weight")
    assert "nn.Parameter" in first.suggestion


@pytest.mark.parametrize("weight", [1.0, 0.001])
def test_two_passes_or_branches_are_no_depth(run: Run, weight: float) -> None:
    class Consistent(Module):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            x, y = batch
            z, again = self.net(x), self.net(x + 0.1 * torch.randn_like(x))
            return F.cross_entropy(z, y) + weight * F.mse_loss(again.softmax(1), z.detach().softmax(1))

    class Aside(Module):
        def __init__(self) -> None:
            super().__init__(network())
            self.aside = network(1)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.net(x), y) + weight * F.mse_loss(self.aside(x)[:, 0], x[:, 0])

    for module in (Consistent(network()), Aside()):
        assert "R06" not in {finding.rule for finding in run(module)}


@pytest.mark.parametrize("kind", [Doctor, ActivationMonitor, GradientMonitor, UpdateMonitor])
def test_callbacks_can_be_pickled_after_training(make_trainer: MakeTrainer, kind: type[Monitor]) -> None:
    callback = kind(10)
    make_trainer(callbacks=[callback], max_steps=30).fit(Module(network()), data())
    again = pickle.loads(pickle.dumps(callback))
    make_trainer(callbacks=[again], max_steps=30).fit(Module(network()), data())
    assert again.state_dict()["last_step"] == 20


def test_a_warm_up_that_does_not_end(run: Run) -> None:
    class Warm(Module):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 100_000)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    first = run(Warm(network()), 400)[0]
    assert first.rule == "R10"
    assert first.suggestion.startswith("Shorten the warm-up")


def test_a_batch_norm_that_stays_in_eval_after_the_first_validation(run: Run) -> None:
    class Stays(Module):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.net.eval()

        def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
            self.log("val_loss", self.loss(self.net(batch[0]), batch[1]))

        def val_dataloader(self) -> DataLoader:
            return DataLoader(data().dataset, batch_size=320)

    net = nn.Sequential(nn.Linear(20, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
    found = {finding.rule: finding for finding in run(Stays(net), limit_val_batches=1.0)}
    assert "has taken in 1 batch; call train()" in found["R17"].suggestion


@pytest.mark.parametrize(
    ("evaluates", "loaded", "expected"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_batch_norm_that_takes_in_no_batch(
    evaluates: bool, loaded: bool, expected: bool, run: Callable[..., list[Finding]]
) -> None:
    """Without a validation that would tell; what is loaded has its statistics from before."""
    net = nn.Sequential(nn.Linear(20, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
    if loaded:
        net[1].running_mean.normal_()

    class Evaluating(Module):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor | None:
            self.net.train(not evaluates)
            return super().training_step(batch, batch_idx)

    findings = {finding.rule: finding for finding in run(Evaluating(net))}
    assert ("R17" in findings) == expected
    if expected:
        assert findings["R17"].where == "net.1"
        assert "eval()" in findings["R17"].suggestion


def test_a_lazy_batch_norm_that_is_never_called(run: Callable[..., list[Finding]]) -> None:
    module = Module(network())
    module.spare = nn.LazyBatchNorm1d()
    module.configure_optimizers = lambda: torch.optim.SGD(module.net.parameters(), lr=0.1)  # type: ignore[method-assign]
    assert "R17" not in {finding.rule for finding in run(module)}
