"""`Trainer(sync_batchnorm=True)` and torch's convert_sync_batchnorm synchronise our layers, and torch's as before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bnlm.normalization import BatchNorm, BatchRenorm, GhostBatchNorm

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from bnlm.normalization import BatchNorm

torch.set_num_threads(1)
folder = sys.argv[1]

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 4), BatchNorm(4, unbiased=True, channel_dim=-1), nn.Tanh())
        self.net.load_state_dict(torch.load(f"{folder}/before.pt"))

    def training_step(self, batch):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.load(f"{folder}/x.pt")[self.global_rank :: 2]), batch_size=4)

model = Model()
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", sync_batchnorm=True, max_epochs=1, logger=False,
    enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
)
trainer.fit(model)
assert model.net[1].sync
torch.save(model.net.state_dict(), f"{folder}/after_{trainer.global_rank}.pt")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_a_lightning_fit_of_two_processes_is_one_of_the_joined_batches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), BatchNorm(4, unbiased=True, channel_dim=-1), nn.Tanh())
    x = 3 * torch.randn(24, 5, 3) + torch.arange(24.0).view(-1, 1, 1)  # no two batches are alike
    torch.save(net.state_dict(), tmp_path / "before.pt")
    torch.save(x, tmp_path / "x.pt")
    (tmp_path / "run.py").write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    finished = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path], env=environment, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for batch in x.view(3, 8, 5, 3):  # of each, every process has had half
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
    for rank in range(2):
        after = torch.load(tmp_path / f"after_{rank}.pt")
        assert_close(after, dict(net.state_dict()), rtol=1e-4, atol=1e-5)  # float32, sums in another order


def test_convert_sync_batchnorm_switches_ours_and_replaces_torchs() -> None:
    ours = BatchNorm(4, unbiased=True, channel_dim=-1)
    model = nn.Sequential(nn.Linear(3, 4), ours, nn.Sequential(nn.BatchNorm1d(4)))
    group = object()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model, process_group=group)
    assert converted is model
    assert model[1] is ours
    assert ours.sync
    assert ours.process_group is group
    assert type(model[2][0]) is nn.SyncBatchNorm
    assert nn.SyncBatchNorm.convert_sync_batchnorm(BatchNorm(4)).sync


def test_lightnings_plugin_applies_and_reverts() -> None:
    from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm

    ours = BatchNorm(4)
    model = nn.Sequential(ours, nn.BatchNorm1d(4))
    plugin = TorchSyncBatchNorm()
    plugin.apply(model)
    assert ours.sync
    plugin.revert(model)
    assert model[0] is ours


@pytest.mark.parametrize("layer", [GhostBatchNorm(4), BatchRenorm(4)])
def test_layers_that_cannot_be_synchronised_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=rf"sync_batchnorm=True: {type(layer).__name__} cannot .*normalization=batch"):
        nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Linear(3, 4), layer))
