"""Causes that are seen only beside what they bring about: inputs of zeros, BatchNorm in eval mode, a heavy dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bnlm.callbacks import Doctor
from bnlm.doctor import Finding

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
]

STEPS = 110


class Net(LightningModule):
    """Three classes; `evaluates` leaves the BatchNorm in eval mode while training."""

    def __init__(self, *layers: nn.Module, evaluates: bool = False, state: bool = False) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)
        self.state = nn.Linear(12, 12) if state else None
        self.evaluates = evaluates

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(len(x), 12)
        return self.net(x if self.state is None else x + self.state(start))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        if self.evaluates:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def findings(make_trainer: Callable[..., Trainer]) -> Callable[..., list[Finding]]:
    def train(net: Net, scale: float = 1.0, validate: bool = False) -> list[Finding]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(64 * STEPS, 12, generator=generator)
        y = (x @ torch.randn(12, 3, generator=generator)).argmax(1)
        loader = DataLoader(TensorDataset(x * scale, y), batch_size=64)
        doctor = Doctor(table=False)
        trainer = make_trainer(max_steps=STEPS, callbacks=[doctor], logger=False, limit_val_batches=1.0)
        trainer.fit(net, loader, loader if validate else None)
        return [finding for finding in doctor.findings if finding.severity != "note"]

    return train


def layers(activation: nn.Module, bias: float = 0.0) -> list[nn.Module]:
    torch.manual_seed(0)
    first, last = nn.Linear(12, 32), nn.Linear(32, 3)
    nn.init.constant_(first.bias, bias)
    return [first, activation, last]


@pytest.mark.parametrize("bias", [0.0, -0.5, 0.5])
def test_inputs_of_zeros_are_named_before_the_units_that_are_dead_of_them(
    findings: Callable[..., list[Finding]], bias: float
) -> None:
    first = findings(Net(*layers(nn.ReLU(), bias)), scale=0.0)[0]
    assert (first.rule, first.suggestion) == ("R13", "Look at the inputs: nothing but zeros comes to net.0.weight.")


def test_a_state_of_zeros_is_no_input(findings: Callable[..., list[Finding]]) -> None:
    assert findings(Net(*layers(nn.ReLU()), state=True)) == []


@pytest.mark.parametrize("evaluates", [True, False])
def test_batch_norm_that_is_in_eval_mode_while_training(
    findings: Callable[..., list[Finding]], evaluates: bool
) -> None:
    first, activation, last = layers(nn.ReLU())
    found = findings(Net(first, nn.BatchNorm1d(32), activation, last, evaluates=evaluates), scale=4.0, validate=True)
    mismatch = next((finding for finding in found if finding.rule == "R17"), None)
    assert (mismatch is not None and "taken in no batch" in mismatch.suggestion) == evaluates
    assert mismatch is None or "100% of their start" in mismatch.message


def test_dropout_that_makes_logits_large(findings: Callable[..., list[Finding]]) -> None:
    first, activation, last = layers(nn.ReLU())
    found = findings(Net(first, activation, nn.Dropout(0.99), last), scale=4.0)
    assert found[0].rule in ("R01", "R02")
    assert "dropout" in found[0].suggestion
