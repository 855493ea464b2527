"""Two processes: activation statistics are pooled over them, gradients are those after the reduction.

The processes differ: each has minibatches of its own, each calls an activation that the other does not, and one layer
has another number of units in each. What they do not have in common is left out, and nobody waits for ever.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bnlm.data.minibatches import minibatch_indices

VOCAB, EXAMPLES, BATCH, SEED = 7, 60, 9, 4

SCRIPT = f"""
import sys, warnings
warnings.simplefilter("ignore")
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from bnlm.callbacks import ActivationMonitor, GradientMonitor, UpdateMonitor
from bnlm.data.minibatches import Minibatches
from bnlm.language_model import LanguageModel
from bnlm.models import MLP

folder = sys.argv[1]
torch.set_num_threads(1)

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLP({VOCAB}, 3, 4, [6])

    def forward(self, idx):
        if trainer.global_rank == 1:
            torch.sigmoid(torch.ones(2, 3))
        else:
            torch.nn.functional.elu(torch.ones(2, 3))
        torch.relu(torch.ones(2, 3, 4 + trainer.global_rank))
        return self.mlp(idx)

class Snapshots(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 0:
            torch.save(module.state_dict(), f"{{folder}}/{{trainer.global_step}}.pt")

    def on_train_end(self, trainer, module):
        self.on_train_batch_start(trainer, module, None, None)

options = {{"every_n_steps": 4, "figures_every_n_steps": 4, "histograms_every_n_steps": 4}}
callbacks = [ActivationMonitor(**options), GradientMonitor(**options), UpdateMonitor(**options), Snapshots()]
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_steps=8, max_epochs=-1, callbacks=callbacks,
    logger=TensorBoardLogger(folder, name="run", version=""), enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False, limit_val_batches=0, log_every_n_steps=1, use_distributed_sampler=False,
)
torch.manual_seed(0)
generator = torch.Generator().manual_seed(1)
contexts = torch.randint({VOCAB}, ({EXAMPLES}, 3), generator=generator)
batches = Minibatches(
    contexts, contexts[:, 0], batch_size={BATCH}, steps_per_batch=1, seed={SEED},
    current_step=lambda: trainer.global_step, max_steps=8, rank=trainer.global_rank, world_size=2,
)
network = Network()
trainer.fit(LanguageModel(network, {VOCAB}, lambda p: torch.optim.SGD(p, lr=0.5)), batches)
"""


def recomputed(before: dict[str, Tensor], after: dict[str, Tensor], step: int) -> dict[str, float]:
    """The tags of one step from both processes' minibatches, in float64."""
    contexts = torch.randint(VOCAB, (EXAMPLES, 3), generator=torch.Generator().manual_seed(1))
    p = {name.removeprefix("model.mlp."): value.double().requires_grad_() for name, value in before.items()}
    inputs, outputs = [], []
    for rank in range(2):
        (picked,) = minibatch_indices(EXAMPLES, BATCH, step, step + 1, SEED, rank)
        x = p["embedding.weight"][contexts[picked]].flatten(1)
        z = F.linear(x, p["blocks.0.linear.weight"], p["blocks.0.linear.bias"])
        h = torch.tanh(z)
        h.retain_grad()
        logits = F.linear(h, p["output.linear.weight"], p["output.linear.bias"])
        F.cross_entropy(logits, contexts[picked, 0]).backward()  # accumulates: twice the average
        inputs.append(z.detach())
        outputs.append(h)
    z, h, gradient = torch.cat(inputs), torch.cat(outputs).detach(), torch.cat([h.grad for h in outputs])
    layer = "model.mlp.blocks.0.activation"
    tags = {
        f"activation_mean/{layer}": h.mean(),
        f"activation_std/{layer}": h.std(),
        f"preactivation_std/{layer}": z.std(),
        f"saturation/{layer}": (h.abs() > 0.97).double().mean(),
        f"activation_gradient_std/{layer}": gradient.std(),
        f"dead_units/{layer}": torch.tensor(0.0),
        "gradient_norm/total": torch.cat([value.grad.reshape(-1) / 2 for value in p.values()]).norm(),
        "activation_mean/model.relu": torch.tensor(1.0),
        "activation_std/model.relu": torch.tensor(0.0),
        "preactivation_std/model.relu": torch.tensor(0.0),
    }
    for name, value in p.items():
        full = f"model.mlp.{name}"
        tags[f"gradient_std/{full}"] = value.grad.std() / 2
        tags[f"grad_to_data/{full}"] = value.grad.std() / 2 / value.detach().std()
        moved = (after[full] - before[full]).double()
        tags[f"update_to_data/{full}"] = (moved.std() / value.detach().std()).log10()
    return {tag: value.item() for tag, value in tags.items()}


def run_script(script: str, folder: Path) -> None:
    """Run a script that starts two processes."""
    (folder / "run.py").write_text(script)
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "WORLD_SIZE", "NODE_RANK")}
    finished = subprocess.run(
        [sys.executable, folder / "run.py", folder], env=environment, capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes(monitored: Callable[[Path], dict[int, dict[str, float]]], tmp_path: Path) -> None:
    run_script(SCRIPT, tmp_path)
    written = monitored(tmp_path / "run")
    assert list(written) == [0, 4]
    weights = partial(torch.load, weights_only=True)
    for step, tags in written.items():
        expected = recomputed(weights(tmp_path / f"{step}.pt"), weights(tmp_path / f"{step + 1}.pt"), step)
        assert set(tags) == set(expected)
        for tag, value in tags.items():
            # 2e-7: the float32 rounding of the outputs, which remains where their mean goes to zero
            atol = 2e-7 if tag.startswith("activation_mean") else 0
            assert value == pytest.approx(expected[tag], rel=1e-5, abs=atol), tag


STOPS = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from bnlm.callbacks import Doctor

torch.set_num_threads(1)

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self.net(batch[0]), batch[1])
        return loss * float("nan") if batch_idx >= 12 else loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = [(torch.randn(4), torch.tensor(i % 3)) for i in range(400)]
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_steps=50, callbacks=[Doctor(5, "stop", table=False)],
    logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
)
trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=4))
open(f"{sys.argv[1]}/stopped_{trainer.global_rank}", "w").write(str(trainer.global_step))
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_both_processes_stop_at_a_critical_finding(tmp_path: Path) -> None:
    """The first one finds it at step 15; the second hears of it when the next observed step, 20, begins."""
    run_script(STOPS, tmp_path)
    assert [(tmp_path / f"stopped_{rank}").read_text() for rank in range(2)] == ["21", "21"]
