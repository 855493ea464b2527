"""The monitors on modules that know nothing of them: automatic, accumulated, manual, two optimizers, precisions.

Everything is recomputed here with functional code. The modules run in float64 where not said otherwise, so 1e-5 is only
what an event file keeps (float32, 6e-8) and room.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bnlm.callbacks import ActivationMonitor, GradientMonitor, UpdateMonitor
from bnlm.callbacks.monitor import Monitor

Scalars = dict[int, dict[str, float]]
Snapshot = dict[str, Tensor]
Monitored = Callable[[Path], Scalars]
MakeTrainer = Callable[..., Trainer]

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def all_three(**options: Any) -> list[Monitor]:
    options = {"figures_every_n_steps": None} | options
    return [ActivationMonitor(**options), GradientMonitor(**options), UpdateMonitor(**options)]


class Snapshots(Callback):
    """Keeps the weights before every batch and at the end."""

    def __init__(self) -> None:
        self.taken: list[Snapshot] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self.taken.append({name: p.detach().clone() for name, p in pl_module.named_parameters()})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_train_batch_start(trainer, pl_module, None, -1)


class Classifier(LightningModule):
    """Functional activations: a tanh in a submodule, a relu in the module itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = Encoder()
        self.second, self.third = nn.Linear(6, 5), nn.Linear(5, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        x = F.relu(self.second(self.encoder(x)))
        return F.cross_entropy(self.third(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.02)


class Encoder(nn.Module):
    """A Linear and a call of tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return (3 * self.linear(x)).tanh()


def drawn(sizes: Sequence[int]) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)] for n in sizes]


def activation_tags(layer: str, before: Tensor, after: Tensor, gradient: Tensor, dead: float) -> dict[str, float]:
    return {
        f"activation_mean/{layer}": after.double().mean().item(),
        f"activation_std/{layer}": after.double().std().item(),
        f"preactivation_std/{layer}": before.double().std().item(),
        f"activation_gradient_std/{layer}": gradient.double().std().item(),
        f"dead_units/{layer}": dead,
    }


def parameter_tags(gradients: Snapshot, before: Snapshot, after: Snapshot) -> dict[str, float]:
    tags = {"gradient_norm/total": torch.cat([g.double().reshape(-1) for g in gradients.values()]).norm().item()}
    for name, gradient in gradients.items():
        spread = before[name].double().std()
        tags[f"gradient_std/{name}"] = gradient.double().std().item()
        tags[f"grad_to_data/{name}"] = (gradient.double().std() / spread).item()
        tags[f"update_to_data/{name}"] = ((after[name] - before[name]).double().std() / spread).log10().item()
    return tags


def recomputed(before: Snapshot, after: Snapshot, batches: list[list[Tensor]], scale: float = 1.0) -> dict[str, float]:
    """All tags of one step of `Classifier` over these micro-batches, in the precision of the snapshots."""
    p = {name: value.clone().requires_grad_() for name, value in before.items()}
    inputs: list[list[Tensor]] = [[], []]
    outputs: list[list[Tensor]] = [[], []]
    for x, y in batches:
        x = x.to(p["third.bias"].dtype)
        z = 3 * F.linear(x, p["encoder.linear.weight"], p["encoder.linear.bias"])
        h = torch.tanh(z)
        v = F.linear(h, p["second.weight"], p["second.bias"])
        r = v.clamp(min=0) if v.dtype == torch.float64 else v.relu()
        loss = F.cross_entropy(F.linear(r, p["third.weight"], p["third.bias"]), y)
        for tensor, kept in ((z, inputs[0]), (v, inputs[1]), (h, outputs[0]), (r, outputs[1])):
            kept.append(tensor.detach())
        h.retain_grad()
        r.retain_grad()
        (loss * scale / len(batches)).backward()
        outputs[0][-1], outputs[1][-1] = h, r
    pooled = [torch.cat([t.detach() for t in kept]) for kept in (inputs[0], inputs[1], outputs[0], outputs[1])]
    gradients = [torch.cat([t.grad.double() for t in kept]) / scale for kept in outputs]
    flat = pooled[2].abs() > 0.97
    tags = activation_tags("encoder.tanh", pooled[0], pooled[2], gradients[0], flat.all(0).double().mean().item())
    tags["saturation/encoder.tanh"] = flat.double().mean().item()
    silent = (pooled[3] <= 0).all(0).double().mean().item()
    tags |= activation_tags("relu", pooled[1], pooled[3], gradients[1], silent)
    return tags | parameter_tags({name: value.grad / scale for name, value in p.items()}, before, after)


def check(written: dict[str, float], expected: dict[str, float]) -> None:
    assert set(written) == set(expected)
    for tag, value in written.items():
        # 2e-7: rounding of the float32 model's outputs, which remains where their mean goes to zero
        assert value == pytest.approx(expected[tag], rel=1e-5, abs=2e-7 if tag[:15] == "activation_mean" else 0), tag


def test_accumulation_and_clipping(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """Micro-batches are pooled, the last step of the epoch has fewer; gradients are those before clipping."""
    sizes = [8, 5, 7, 6, 3, 9, 8, 8, 4, 6]  # steps of 4, 4 and 2
    snapshots, batches = Snapshots(), drawn(sizes)
    trainer = make_trainer(
        callbacks=[*all_three(every_n_steps=2), snapshots],
        precision="64-true",
        accumulate_grad_batches=4,
        gradient_clip_val=0.01,
        max_epochs=1,
    )
    trainer.fit(Classifier(), DataLoader(batches, batch_size=None))
    written = monitored(tmp_path / "run")
    assert list(written) == [0, 2]
    for step, first, last in ((0, 0, 4), (2, 8, 10)):
        expected = recomputed(snapshots.taken[first], snapshots.taken[last], batches[first:last])
        if step == 2:  # Lightning divides by 4 all the same; and dead is what was silent in both observed steps
            for tag in list(expected):
                if tag.startswith(("gradient_", "grad_to", "activation_gradient")):
                    expected[tag] *= 2 / 4
            both = recomputed(snapshots.taken[0], snapshots.taken[4], batches[:4])
            for tag in [tag for tag in expected if tag.startswith("dead_units")]:
                assert expected[tag] >= written[step][tag] <= both[tag]
                expected[tag] = written[step][tag]
        check(written[step], expected)
        assert expected["gradient_norm/total"] > 0.01


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed", "bf16-true"])
def test_precisions(precision: str, make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """Against the same step by functional code in the same precision; the statistics of it in float64."""
    snapshots, batches = Snapshots(), drawn([9, 9])
    trainer = make_trainer(callbacks=[*all_three(every_n_steps=1), snapshots], precision=precision, max_steps=2)
    trainer.fit(Classifier(), DataLoader(batches, batch_size=None))
    before, after = snapshots.taken[:2]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        expected = recomputed(before, after, batches[:1])
    if precision == "bf16-true":  # the change itself is taken in float32
        for name in before:
            moved = (after[name].double() - before[name].double()).std() / before[name].double().std()
            expected[f"update_to_data/{name}"] = moved.log10().item()
    check(monitored(tmp_path / "run")[0], expected)


def test_fp16_gradients_are_unscaled(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    snapshots, batches = Snapshots(), drawn([9, 9])
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=512.0))
    trainer = make_trainer(
        callbacks=[*all_three(every_n_steps=1), snapshots], plugins=[plugin], max_steps=2, gradient_clip_val=0.1
    )
    trainer.fit(Classifier(), DataLoader(batches, batch_size=None))
    with torch.autocast("cpu", torch.float16):
        expected = recomputed(*snapshots.taken[:2], batches[:1], scale=512.0)
    check(monitored(tmp_path / "run")[0], expected)


def test_a_step_that_the_scaler_skips(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """Gradients overflow: the optimizer does not step, and there is no update to tell of; the next are observed."""
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**30, backoff_factor=2.0**-22))
    trainer = make_trainer(callbacks=all_three(every_n_steps=1), plugins=[plugin], max_steps=3)
    trainer.fit(Classifier(), DataLoader(drawn([9] * 3), batch_size=None))
    written = monitored(tmp_path / "run")
    assert not any(tag.startswith("update_to_data") for tag in written[0])
    assert "activation_std/relu" in written[0]
    assert all("update_to_data/second.weight" in tags for step, tags in written.items() if step > 0)
    assert len(written) > 1


@pytest.mark.parametrize(
    ("monitor", "statistics"),
    [
        (
            ActivationMonitor,
            {"activation_mean", "activation_std", "preactivation_std", "saturation", "dead_units"}
            | {"activation_gradient_std"},
        ),
        (GradientMonitor, {"gradient_std", "grad_to_data", "gradient_norm"}),
        (UpdateMonitor, {"update_to_data"}),
    ],
)
def test_each_monitor_alone(
    monitor: type[Monitor], statistics: set[str], make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path
) -> None:
    for name, callbacks in (("alone", [monitor(2, None, None)]), ("together", all_three(every_n_steps=2))):
        trainer = make_trainer(name, callbacks=callbacks, max_steps=5)
        trainer.fit(Classifier(), DataLoader(drawn([9] * 5), batch_size=None))
    alone, together = monitored(tmp_path / "alone"), monitored(tmp_path / "together")
    assert list(alone) == [0, 2, 4]
    assert {tag.partition("/")[0] for tags in alone.values() for tag in tags} == statistics
    for step, tags in alone.items():
        assert tags == {tag: v for tag, v in together[step].items() if tag.partition("/")[0] in statistics}


class Manual(Classifier):
    """Two backward passes and a clipping of its own before each step."""

    def __init__(self, plain: bool) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.plain = plain

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        for half in (slice(0, 4), slice(4, None)):
            loss = super().training_step([part[half] for part in batch], batch_idx) / 2
            if self.plain:
                loss.backward()
            else:
                self.manual_backward(loss)
        if not self.plain:
            self.clip_gradients(optimizer, 0.01, "norm")
        optimizer.step()


@pytest.mark.parametrize("plain", [False, True])
def test_manual_optimization(plain: bool, make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """With `manual_backward`, and with a plain `backward`, which no hook of Lightning's reports."""
    snapshots, (batch, *rest) = Snapshots(), drawn([9] * 4)
    trainer = make_trainer(callbacks=[*all_three(every_n_steps=3), snapshots], precision="64-true", max_steps=4)
    trainer.fit(Manual(plain), DataLoader([batch, *rest], batch_size=None))
    halves = [[part[half] for part in batch] for half in (slice(0, 4), slice(4, None))]
    expected = recomputed(*snapshots.taken[:2], halves)
    written = monitored(tmp_path / "run")
    assert list(written) == [0, 3]
    check(written[0], expected)


class GAN(LightningModule):
    """The discriminator's step, then the generator's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.g, self.d = nn.Linear(4, 6), nn.Linear(6, 3)
        self.seen: list[dict[str, Snapshot]] = []

    def generate(self, z: Tensor) -> Tensor:
        return torch.tanh(self.g(z))

    def judge(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.d(x), 0.2).mean()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        z, real = batch[0], torch.cat([batch[0], batch[0][:, :2]], 1)
        d_optimizer, g_optimizer = self.optimizers()
        before = self._copies()
        loss = self.judge(self.generate(z).detach()) - self.judge(real)
        d_optimizer.zero_grad()
        self.manual_backward(loss)
        gradients = {f"d.{name}": p.grad.clone() for name, p in self.d.named_parameters()}
        d_optimizer.step()
        between = self._copies()
        g_optimizer.zero_grad()
        self.manual_backward(-self.judge(self.generate(z)))  # this reaches the discriminator's gradients too
        gradients |= {f"g.{name}": p.grad.clone() for name, p in self.g.named_parameters()}
        g_optimizer.step()
        after = {name: p if name[0] == "g" else between[name] for name, p in self._copies().items()}
        self.seen.append({"gradients": gradients, "before": before, "after": after})

    def _copies(self) -> Snapshot:
        return {name: p.detach().clone() for name, p in self.named_parameters()}

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD(self.d.parameters(), lr=0.2), torch.optim.Adam(self.g.parameters(), lr=0.01)]


def test_two_optimizers(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    batches, model = drawn([9] * 3), GAN()
    trainer = make_trainer(callbacks=all_three(every_n_steps=4), precision="64-true", max_steps=6)
    trainer.fit(model, DataLoader(batches, batch_size=None))
    written = monitored(tmp_path / "run")
    assert list(written) == [0, 4]  # Lightning counts the steps of both
    for step, seen in ((0, model.seen[0]), (4, model.seen[2])):
        expected = parameter_tags(seen["gradients"], seen["before"], seen["after"])
        check({tag: v for tag, v in written[step].items() if tag in expected}, expected)
        layers = {tag.partition("/")[2] for tag in written[step] if tag.startswith("activation_std")}
        assert layers == {"tanh", "leaky_relu", "leaky_relu_1"}
        p = seen["before"]
        z = batches[step // 2][0].double()
        fake = torch.tanh(z @ p["g.weight"].T + p["g.bias"])  # the same in both steps
        assert written[step]["activation_std/tanh"] == pytest.approx(fake.repeat(2, 1).std().item(), rel=1e-5)


class Compiled(Classifier):
    """Its encoder is compiled already when the monitors come."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.compile(self.encoder, backend="eager")


@pytest.mark.parametrize("how", ["submodule", "whole", "in place"])
def test_compiled_modules(how: str, make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    torch._dynamo.reset()
    snapshots, batches = Snapshots(), drawn([9] * 4)
    model: Any = Compiled() if how == "submodule" else Classifier()
    if how == "in place":
        model.encoder.compile(backend="eager")
    elif how == "whole":
        model = torch.compile(model, backend="eager")
    trainer = make_trainer(callbacks=[*all_three(every_n_steps=3), snapshots], max_steps=4, precision="64-true")
    trainer.fit(model, DataLoader(batches, batch_size=None))
    before, after = (
        {name.replace("_orig_mod.", ""): value for name, value in taken.items()} for taken in snapshots.taken[3:5]
    )
    expected = recomputed(before, after, batches[3:4])
    written = monitored(tmp_path / "run")
    for tag in [tag for tag in expected if tag.startswith("dead_units")]:  # over two observed steps
        expected[tag] = written[3][tag]
    check(written[3], expected)
    torch._dynamo.reset()


def test_sparse_and_single_parameters(make_trainer: MakeTrainer, monitored: Monitored, tmp_path: Path) -> None:
    """A sparse gradient is measured as the dense one; a single element has no spread and is left out."""

    class Sparse(LightningModule):
        def __init__(self, sparse: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.scale = nn.Embedding(9, 4, sparse=sparse), nn.Parameter(torch.tensor(2.0))
            self.frozen = nn.Parameter(torch.randn(3, 2), requires_grad=False)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return (self.scale * torch.tanh(self.embedding(batch[1]))).square().sum()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    for name in ("sparse", "dense"):
        trainer = make_trainer(name, callbacks=all_three(every_n_steps=1), max_steps=2)
        trainer.fit(Sparse(name == "sparse"), DataLoader(drawn([9] * 2), batch_size=None))
    written = monitored(tmp_path / "sparse")
    dense = monitored(tmp_path / "dense")
    for step, tags in written.items():
        assert tags == pytest.approx(dense[step], rel=1e-6)
    parameters = {tag for tag in written[0] if tag.startswith(("gradient_", "grad_to", "update"))}
    assert parameters == {
        "gradient_norm/total",
        *(f"{s}/embedding.weight" for s in ("gradient_std", "grad_to_data", "update_to_data")),
    }
