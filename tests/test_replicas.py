"""`replicas=N` and lists of values: every network is what the run with its values makes of it alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnlm.data import Minibatches
from bnlm.data.minibatches import minibatch_indices
from bnlm.evaluate import main as evaluate

Run = Callable[..., Path]
STEPS = "trainer.max_steps=60"
SMALL = ("model.hidden_sizes=[20,20]", "trainer.val_check_interval=30", STEPS, "diagnostics.every_n_steps=10")


def summary(folder: Path) -> dict[str, float]:
    return json.loads((folder / "summary.json").read_text())


def scalars(folder: Path, tag: str) -> dict[int, float]:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {e.step: e.value for e in events.Scalars(tag)}


CASES = {
    "sgd": (),
    "momentum, clipped": ("optimizer.momentum=0.9", "+trainer.gradient_clip_val=0.1"),
    "adamw, cosine": ("optimizer=adamw", "optimizer.lr=0.01", "scheduler=cosine"),
    "compiled": ("compile=true", "optimizer.momentum=0.9", "+trainer.gradient_clip_val=0.1"),
    "relu, no normalization": ("model.activation=relu", "normalization=none"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_replica_is_the_run_of_its_seed(run: Run, case: str) -> None:
    """Losses after 60 steps to 1e-4, of train, validation and each of the first steps (float32)."""
    together = run("together", *SMALL, *CASES[case], "seed=4", "replicas=3")
    found = summary(together)
    assert "eagerly" not in (together / "train.log").read_text()
    losses = []
    for index in range(3):
        alone = run(f"alone{index}", *SMALL, *CASES[case], f"seed={4 + index}")
        expected = summary(alone)
        for split in ("train", "val", "test"):
            key = f"{split}/loss_replica_{index}"
            assert found[key] == pytest.approx(expected[f"{split}/loss"], abs=1e-4)
        losses.append(expected["val/loss"])
        ours, theirs = scalars(together, f"train/loss_replica_{index}"), scalars(alone, "train/loss")
        assert ours.keys() == theirs.keys()
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert found["val/loss"] == pytest.approx(sum(losses) / 3, abs=1e-4)
    assert found["val/loss_std"] == pytest.approx(float(torch.tensor(losses).std()), abs=1e-4)
    assert scalars(together, "val/loss_std")[60] == pytest.approx(found["val/loss_std"], abs=1e-6)
    assert found["parameters"] == expected["parameters"]


LISTS: dict[str, tuple[tuple[str, ...], dict[str, list[object]]]] = {
    "rates, momentum, decay, clipped, step": (
        ("optimizer.momentum=0.9", "optimizer.weight_decay=0.01", "+trainer.gradient_clip_val=0.5"),
        {"optimizer.lr": [0.1, 0.03, 0.0], "scheduler.milestones": []},
    ),
    "rates of adamw, cosine, compiled": (
        ("optimizer=adamw", "scheduler=cosine", "optimizer.weight_decay=0.1", "compile=true"),
        {"optimizer.lr": [0.01, 0.003, 0.001]},
    ),
    "rates of sgd, compiled": (
        ("optimizer.momentum=0.9", "optimizer.weight_decay=0.01", "+trainer.gradient_clip_val=0.5", "compile=true"),
        {"optimizer.lr": [0.1, 0.03, 0.3], "seed": [0, 5, 7]},
    ),
    "inits": ((), {"init.gain": ["auto", 1, 0.5], "init.output_scale": [0.1, 1, 0.5], "init.bias": [0, 0.1, None]}),
    "seeds and a factor": (("init=scaled", "replicas=3"), {"init.scheme.factor": [0.1, 0.2, 0.3], "seed": [9, 9, 2]}),
}


def written(value: object) -> str:
    return "null" if value is None else str(value)


@pytest.mark.parametrize("case", LISTS)
def test_each_replica_is_the_run_of_its_values(run: Run, case: str) -> None:
    """Losses to 1e-4 (float32); one of the replicas goes on from its checkpoint as that run would."""
    given, lists = LISTS[case]
    lists = {key: values for key, values in lists.items() if values}
    if "step" in case:
        given = (*given, "scheduler.milestones=[30]")
    together = run("together", *SMALL, *given, *(f"{k}=[{','.join(map(written, v))}]" for k, v in lists.items()))
    found = summary(together)
    assert "eagerly" not in (together / "train.log").read_text()
    assert found["replicas"] == 3
    for index in range(3):
        values = {"seed": index} | {key: each[index] for key, each in lists.items()}
        own = [f"{key}={written(value)}" for key, value in values.items()]
        own += [option for option in given if not option.startswith("replicas")]
        assert found["replica_values"][index] == values
        own = [option for option in own if option != "compile=true"]  # eager steps are the same, and sooner there
        alone = run(f"alone{index}", *SMALL, *own)
        expected = summary(alone)
        for split in ("train", "val", "test"):
            key = f"{split}/loss_replica_{index}"
            assert found[key] == pytest.approx(expected[f"{split}/loss"], abs=1e-4)
        ours, theirs = scalars(together, f"train/loss_replica_{index}"), scalars(alone, "train/loss")
        assert ours == pytest.approx(theirs, abs=1e-4)
        if "optimizer.lr" in lists:
            assert scalars(together, f"train/lr_replica_{index}") == pytest.approx(scalars(alone, "train/lr"))
    longer = "trainer.max_steps=90"
    end = () if "cosine" not in case else ("scheduler.T_max=60",)  # which follows max_steps otherwise
    straight = run("straight", *SMALL[:2], SMALL[3], longer, *own, *end)
    resumed = run("resumed", f"checkpoint={together}/checkpoints/replica_2.ckpt", longer, *end)
    assert summary(resumed)["seed"] == values["seed"]
    assert summary(resumed)["val/loss"] == pytest.approx(summary(straight)["val/loss"], abs=1e-4)
    assert scalars(resumed, "train/lr")[89] == pytest.approx(scalars(straight, "train/lr")[89])
    configs = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (resumed, straight)]
    configs = [c["bnlm"]["configuration"]["config"] for c in configs]
    assert all(configs[0][group] == configs[1][group] for group in ("optimizer", "init", "data", "seed", "replicas"))


def test_data_with_a_seed_of_their_own_are_the_same_for_all(run: Run) -> None:
    """`data.seed` follows `seed` only where nobody sets it, with replicas as without."""
    together = summary(run("together", *SMALL, "replicas=2", "data.seed=5"))
    alone = summary(run("alone", *SMALL, "seed=1", "data.seed=5"))
    assert together["val/loss_replica_1"] == pytest.approx(alone["val/loss"], abs=1e-4)


def test_monitors_see_all_replicas_and_the_doctor_is_calm(run: Run) -> None:
    folder = run("a", *SMALL, "replicas=3")
    assert scalars(folder, "activation_std/model.network.blocks.0.activation").keys() == set(range(0, 60, 10))
    assert 0.3 < scalars(folder, "activation_std/model.network.blocks.0.activation")[0] < 0.9
    assert scalars(folder, "activation_gradient_std/model.network.blocks.0.activation")[0] > 0
    found = json.loads((folder / "findings.json").read_text())
    assert [f for f in found if f["severity"] != "note"] == []


def test_a_sickness_of_all_replicas_is_found(run: Run) -> None:
    folder = run("a", *SMALL, "replicas=3", "init=normal", "normalization=none")
    found = json.loads((folder / "findings.json").read_text())
    assert "R01" in {f["rule"] for f in found}


def test_checkpoints_of_single_replicas(run: Run, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    folder = run("a", *SMALL, "replicas=2", "optimizer.momentum=0.9")
    single = folder / "checkpoints" / "replica_1.ckpt"
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["bnlm.evaluate", f"checkpoint={single}", "--json"])
    evaluate()
    found = json.loads(capsys.readouterr().out)
    assert found["val/loss"] == pytest.approx(summary(folder)["val/loss_replica_1"], abs=1e-9)
    # It goes on as the run with its seed would.
    resumed = run("resumed", f"checkpoint={single}", "trainer.max_steps=90")
    straight = run("straight", *SMALL[:2], SMALL[3], "trainer.max_steps=90", "seed=1", "optimizer.momentum=0.9")
    assert summary(resumed)["seed"] == 1
    assert summary(resumed)["val/loss"] == pytest.approx(summary(straight)["val/loss"], abs=1e-4)


@pytest.mark.parametrize(
    "lists", [("replicas=2",), ("optimizer.lr=[0.1,0.05]", "optimizer.momentum=0.9", "seed=[3,1]", "init.gain=[1,2]")]
)
def test_all_replicas_are_resumed_together(run: Run, lists: tuple[str, ...]) -> None:
    """Bit for bit."""
    straight = run("straight", *SMALL, *lists, "trainer.max_steps=90")
    first = run("first", *SMALL, *lists)
    resumed = run("resumed", f"checkpoint={first}/checkpoints/last.ckpt", "trainer.max_steps=90")
    states = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (straight, resumed)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("replicas=0",), "replicas=0: expected a whole number of at least 1"),
        (("replicas=2", "model=rnn"), "not for models over whole words"),
        (("replicas=2", "trainer.devices=2"), "on one device only"),
        (("replicas=2", "seed=4294967295"), "seed exceeds"),
        (("seed=[0,-1]",), "seed=[0, -1]: expected a whole number from 0 to 4294967295 for each replica"),
        (("seed=[0,1.5]",), "seed=1.5: expected a whole number"),
        (
            ("replicas=3", "optimizer.lr=[0.1,0.03]"),
            "optimizer.lr=[0.1, 0.03]: 2 values for replicas=3; expected one for each, or a single one for all",
        ),
        (
            ("optimizer.lr=[0.1,0.03]", "init.gain=[1,2,3]"),
            "init.gain=[1, 2, 3]: 3 values, where optimizer.lr=[0.1, 0.03] has 2; expected lists of one length",
        ),
        (("optimizer.lr=[]",), "optimizer.lr=[]: expected a value, or a list with one for each replica"),
        (("optimizer.lr=[0.1,a]",), "optimizer.lr='a': expected a number"),
        (("optimizer.lr=[0.1,-1]",), "optimizer.lr=[0.1, -1]: expected rates of at least 0"),
        (("init.gain=[1,-1]",), "init.gain=-1: expected auto or a number above 0"),
        (
            ("model.n_embd=[5,10]",),
            "model.n_embd=[5, 10]: expected a whole number. Lists, with a value for each replica, can be given for "
            "seed, optimizer.lr, init.gain, init.output_scale, init.bias, init.output_bias, init.scheme.factor.",
        ),
        (("replicas=2", "data.batch_size=[8,16]"), "data.batch_size=[8, 16]: expected a whole number. Lists, with"),
        (
            ("optimizer.lr=[0.1,0.2]", "optimizer._target_=torch.optim.Adam", "~optimizer.momentum"),
            "optimizer.lr=[0.1, 0.2]: a rate for each replica cannot be (its update is known for SGD and AdamW, not "
            "for Adam)",
        ),
        (
            (
                "replicas=2",
                "optimizer=adamw",
                "optimizer._target_=torch.optim.Adafactor",
                "~optimizer.betas",
                "~optimizer.fused",
            ),
            "Adafactor may mix",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    command: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    overrides: tuple[str, ...],
    message: str,
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit):
        command(*overrides, STEPS, f"hydra.run.dir={tmp_path}")
    printed = capsys.readouterr()
    assert message in " ".join((printed.out + printed.err).split())


def test_other_numbers_of_replicas_do_not_resume(
    run: Run, command: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    first = run("first", *SMALL, "replicas=2")
    last = first / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit):
        command(f"checkpoint={last}", "replicas=3", "trainer.max_steps=90", f"hydra.run.dir={tmp_path / 'x'}")
    printed = capsys.readouterr()
    assert "replicas=3: the checkpoint is of a run with replicas=2" in " ".join((printed.out + printed.err).split())


def test_one_rate_and_several_do_not_resume_as_each_other(
    run: Run, command: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    last = run("first", *SMALL, "replicas=2") / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit):
        command(
            f"checkpoint={last}",
            "optimizer.lr=[0.1,0.2]",
            "trainer.max_steps=90",
            f"hydra.run.dir={tmp_path / 'x'}",
        )
    printed = capsys.readouterr()
    assert "optimizer.lr=[0.1, 0.2]: the checkpoint was trained with 0.1" in " ".join(
        (printed.out + printed.err).split()
    )


def test_minibatches_are_those_of_each_seed() -> None:
    contexts, targets = torch.arange(200).view(100, 2), torch.arange(100)
    batches = Minibatches(
        contexts, targets, batch_size=5, steps_per_batch=4, seed=(7, 8, 9), current_step=lambda: 0, max_steps=4
    )
    x, y = next(iter(batches))
    assert x.shape == (4, 3, 5, 2)
    for index in range(3):
        drawn = minibatch_indices(100, 5, 0, 4, seed=7 + index)
        assert torch.equal(y[:, index], targets[drawn])
        assert torch.equal(x[:, index], contexts[drawn])
