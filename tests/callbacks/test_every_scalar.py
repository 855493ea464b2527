"""Every scalar that the three monitors write, against a plain float64 recomputation from the same batch and weights.

The recomputation is functional code without any module: its own embedding, normalization, loss and autograd. It starts
from the float32 weights at the start of the sampled step, and takes the update from the weights before and after it.
The model runs in float32, so its values differ from the recomputation's by rounding: 1e-5 relative covers it. The mean
of an activation is the exception, as a sum of positive and negative terms: the rounding of its terms, up to 2e-7 for
outputs between -1 and 1, remains while the sum goes to zero.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from bnlm.callbacks import ActivationMonitor, GradientMonitor, UpdateMonitor
from bnlm.data.minibatches import Minibatches, minibatch_indices
from bnlm.language_model import LanguageModel
from bnlm.models import MLP
from bnlm.normalization import BatchNorm

VOCAB, CONTEXT, EXAMPLES, BATCH, SEED = 11, 4, 900, 24, 5
RTOL, ATOL_MEAN = 1e-5, 2e-7
Snapshot = dict[str, Tensor]

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


class Snapshots(Callback):
    """Keeps the weights at the start of every batch."""

    def __init__(self) -> None:
        self.at: dict[int, Snapshot] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.at[trainer.global_step] = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_batch_start(trainer, pl_module, None, -1)


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randint(VOCAB, (EXAMPLES, CONTEXT), generator=generator)
    return contexts, (contexts[:, 0] + contexts[:, -1]) % VOCAB


def train(trainer: Trainer, steps_per_batch: int, activation: str, normalized: bool) -> Snapshots:
    torch.manual_seed(1)
    network = MLP(VOCAB, CONTEXT, 5, [17, 13], activation, BatchNorm if normalized else None, normalized)
    with torch.no_grad():  # some tanh are flat, some relu silent
        network.blocks[0].linear.weight.mul_(3)
        if not normalized:
            network.blocks[0].linear.bias[:3] = -30
    optimizer = partial(torch.optim.SGD, lr=0.3, momentum=0.8, weight_decay=1e-3)
    model = LanguageModel(network, VOCAB, optimizer, gradient_clip_val=0.4)
    batches = Minibatches(
        *examples(),
        batch_size=BATCH,
        steps_per_batch=steps_per_batch,
        seed=SEED,
        current_step=lambda: trainer.global_step,
        max_steps=trainer.max_steps,
    )
    snapshots = Snapshots()
    trainer.callbacks.append(snapshots)
    trainer.fit(model, train_dataloaders=batches)
    return snapshots


class Recomputation:
    """One step in float64; keeps which units have responded so far."""

    def __init__(self, activation: str) -> None:
        self.activation = activation
        self.alive: dict[str, Tensor] = {}

    def __call__(self, step: int, before: Snapshot, after: Snapshot) -> dict[str, float]:
        (picked,) = minibatch_indices(EXAMPLES, BATCH, step, step + 1, SEED)
        contexts, targets = (part[picked] for part in examples())
        trained = [name for name in before if name.rpartition(".")[2] in ("weight", "bias")]
        p = {name: before[name].double().requires_grad_() for name in trained}
        tags: dict[str, float] = {}
        outputs: dict[str, Tensor] = {}

        def affine(x: Tensor, path: str) -> Tensor:
            x = x @ p[f"{path}.linear.weight"].T
            if f"{path}.linear.bias" in p:
                x = x + p[f"{path}.linear.bias"]
            if f"{path}.normalization.weight" in p:
                centered = x - x.mean(0)
                x = centered / (centered.square().mean(0) + 1e-5).sqrt()
                x = x * p[f"{path}.normalization.weight"] + p[f"{path}.normalization.bias"]
            return x

        x = torch.cat([p["model.embedding.weight"][contexts[:, place]] for place in range(CONTEXT)], dim=1)
        for depth in range(2):
            layer = f"model.blocks.{depth}.activation"
            x = affine(x, f"model.blocks.{depth}")
            tags[f"preactivation_std/{layer}"] = x.std().item()
            if self.activation == "tanh":
                x = (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())
                flat = x.abs() > 0.97
                assert not ((x.abs() - 0.97).abs() < 1e-6).any(), "too close to call; take another seed"
                tags[f"saturation/{layer}"] = int(flat.sum()) / flat.numel()
                responded = ~flat
            else:
                x = x * (x > 0)
                responded = x > 0
            self.alive[layer] = self.alive.get(layer, torch.zeros(x.shape[1], dtype=torch.bool)) | responded.any(0)
            tags[f"dead_units/{layer}"] = 1 - float(self.alive[layer].double().mean())
            tags[f"activation_mean/{layer}"] = x.mean().item()
            tags[f"activation_std/{layer}"] = x.std().item()
            x.retain_grad()
            outputs[layer] = x
        logits = affine(x, "model.output")
        loss = (logits.exp().sum(1).log() - logits[torch.arange(BATCH), targets]).mean()
        loss.backward()
        for layer, output in outputs.items():
            tags[f"activation_gradient_std/{layer}"] = float(output.grad.std())
        tags["gradient_norm/total"] = float(torch.cat([value.grad.reshape(-1) for value in p.values()]).norm())
        for name, value in p.items():
            tags[f"gradient_std/{name}"] = float(value.grad.std())
            if value.detach().std() > 0:  # not where a gain is 1, a shift 0
                tags[f"grad_to_data/{name}"] = (value.grad.std() / value.std()).item()
                moved = (after[name] - before[name]).double()
                tags[f"update_to_data/{name}"] = (moved.std() / value.std()).log10().item()
        return tags


@pytest.mark.parametrize(
    ("activation", "normalized", "every", "steps_per_batch", "steps"),
    [("tanh", True, 100, 50, 400), ("tanh", True, 30, 10, 200), ("relu", False, 30, 10, 200)],
)
def test_every_scalar_equals_the_recomputation(
    activation: str,
    normalized: bool,
    every: int,
    steps_per_batch: int,
    steps: int,
    make_trainer: Callable[..., Trainer],
    monitored: Callable[..., dict[int, dict[str, float]]],
    tmp_path: Path,
) -> None:
    kinds = (ActivationMonitor, GradientMonitor, UpdateMonitor)
    monitors = [monitor(every_n_steps=every, figures_every_n_steps=None) for monitor in kinds]
    chunked = train(make_trainer(callbacks=monitors, max_steps=steps), steps_per_batch, activation, normalized)
    # A twin that takes one step per batch shows the weights between any two steps.
    single = train(make_trainer("single", max_steps=steps), 1, activation, normalized)
    for step, snapshot in chunked.at.items():
        assert all(value.equal(single.at[step][name]) for name, value in snapshot.items())

    written = monitored(tmp_path / "run")
    assert list(written) == list(range(0, steps, every))
    recompute = Recomputation(activation)
    for step, tags in written.items():
        expected = recompute(step, single.at[step], single.at[step + 1])
        assert set(tags) == set(expected), step
        for tag, value in tags.items():
            atol = ATOL_MEAN if tag.startswith("activation_mean/") else 0.0
            assert value == pytest.approx(expected[tag], rel=RTOL, abs=atol), (step, tag)
    if activation == "relu":
        assert written[0]["dead_units/model.blocks.0.activation"] >= 3 / 17
