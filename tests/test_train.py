"""The training command as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from bnlm.config import CONF
from bnlm.data import WordsDataModule
from bnlm.evaluate import evaluate

Run = Callable[..., Path]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return tag -> step -> value of a run's event files."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def saved(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same_training(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Weights, buffers and the optimizer's and schedule's state are equal, bit for bit."""
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
    assert a["global_step"] == b["global_step"]
    assert str(a["optimizer_states"]) == str(b["optimizer_states"])
    assert str(a["lr_schedulers"]) == str(b["lr_schedulers"])


def test_a_run_folder_holds_what_it_should(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run("a", "trainer.max_steps=250", "trainer.val_check_interval=100")
    printed = capsys.readouterr().out
    assert printed.rstrip().splitlines()[-1] == f"tensorboard --logdir {folder}"
    for name in (".hydra/config.yaml", "train.log", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "samples.txt"):
        assert (folder / name).is_file(), name
    assert not list((folder / "checkpoints").glob("*.partial"))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 250
    assert summary["seed"] == 0
    assert summary["examples"] == {"train": 183430, "val": 22953, "test": 22818}
    assert len((folder / "samples.txt").read_text().splitlines()) == 20

    tags = scalars(folder)
    assert list(tags["val/loss"]) == [100, 200, 250]  # optimizer steps, not batches
    assert list(tags["train/loss"]) == [*range(100), 199]  # each of the first 100, then means
    assert tags["train/loss"][0] == pytest.approx(summary["first_loss"])
    assert tags["test/loss"] == {250: pytest.approx(summary["test/loss"])}
    assert list(tags["saturation/model.blocks.0.activation"]) == [0, 100, 200]


def test_callbacks_of_lightning_can_go_by_the_training_loss(run: Run) -> None:
    """They read the value that was logged last."""
    stop = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: train/loss, mode: max, patience: 1}"
    folder = run("a", "trainer.max_steps=300", "trainer.val_check_interval=100", f"+callbacks.stop={stop}")
    assert json.loads((folder / "summary.json").read_text())["steps"] == 200  # where it is lower
    states = saved(folder)["callbacks"]
    (state,) = (state for name, state in states.items() if name.startswith("EarlyStopping"))
    assert float(state["best_score"]) == pytest.approx(scalars(folder)["train/loss"][99])


def test_summary_losses_are_those_of_the_saved_model(run: Run) -> None:
    from bnlm.checkpoint import load_model

    folder = run("a", "trainer.max_steps=100", "diagnostics=off")
    model, vocabulary, _ = load_model(folder / "checkpoints" / "last.ckpt")
    data = WordsDataModule()
    contexts, targets = data.examples("test")
    with torch.no_grad():
        logits = model.double()(contexts)
    reference = -logits.log_softmax(1)[torch.arange(len(targets)), targets].mean().item()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test/loss"] == pytest.approx(reference, rel=1e-6)
    assert summary["test/accuracy"] == pytest.approx((logits.argmax(1) == targets).double().mean().item(), rel=1e-6)
    assert evaluate(model.float(), len(vocabulary), data.val_dataloader())["loss"] == pytest.approx(
        summary["val/loss"], rel=1e-9
    )


def test_the_summary_knows_the_test_loss_of_the_best_step(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnlm import evaluate as evaluation

    jump = ["scheduler.milestones=[60]", "scheduler.gamma=300"]  # a learning rate of 30 ruins what was learnt
    folder = run("a", "trainer.max_steps=100", "trainer.val_check_interval=20", "diagnostics=off", *jump)
    printed = capsys.readouterr().out
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best_step"] == saved(folder, "best")["global_step"] == 60
    assert summary["best_val_loss"] == pytest.approx(scalars(folder)["val/loss"][60])
    assert summary["best_test_loss"] < summary["test/loss"] - 0.1
    assert "at step 60, with test loss" in printed
    for name, expected in (("best", summary["best_test_loss"]), ("last", summary["test/loss"])):
        monkeypatch.setattr("sys.argv", ["", f"checkpoint={folder}/checkpoints/{name}.ckpt", "split=test", "--json"])
        capsys.readouterr()
        evaluation.main()
        assert json.loads(capsys.readouterr().out)["test/loss"] == pytest.approx(expected, rel=1e-9)


def test_the_last_step_is_the_best_where_it_lies_between_two_validations(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("a", "trainer.max_steps=70", "trainer.val_check_interval=20", "diagnostics=off")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best_step"] == saved(folder, "best")["global_step"] == 70
    assert (summary["best_val_loss"], summary["best_test_loss"]) == (summary["val/loss"], summary["test/loss"])
    assert "Lowest validation loss" not in capsys.readouterr().out


def test_the_number_of_steps_per_batch_does_not_change_the_weights(run: Run) -> None:
    one = run("one", "steps_per_batch=1", "trainer.max_steps=200", "diagnostics=off")
    fifty = run("fifty", "steps_per_batch=50", "trainer.max_steps=200", "diagnostics.every_n_steps=50")
    for name, value in saved(one)["state_dict"].items():
        assert torch.equal(value, saved(fifty)["state_dict"][name]), name


def test_the_monitors_do_not_change_the_weights(run: Run) -> None:
    off = run("off", "trainer.max_steps=60", "diagnostics=off")
    full = run("full", "trainer.max_steps=60", "diagnostics=full")
    assert_same_training(saved(off), saved(full))


def test_max_steps_need_not_fill_a_batch(run: Run) -> None:
    assert saved(run("a", "trainer.max_steps=73", "diagnostics=off"))["global_step"] == 73


def test_steps_per_batch_adapts_to_the_monitors(run: Run) -> None:
    folder = run("a", "trainer.max_steps=70", "diagnostics.every_n_steps=7", "trainer.val_check_interval=35")
    assert "steps_per_batch is 7 instead of 50" in (folder / "train.log").read_text()
    tags = scalars(folder)
    assert list(tags["gradient_norm/total"]) == list(range(0, 70, 7))
    assert list(tags["val/loss"]) == [35, 70]


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["optimizer=adamw", "scheduler=cosine", "+scheduler.T_max=400"],
        ["compile=true", "model.hidden_sizes=[20]", "optimizer.momentum=0.9"],
    ],
)
def test_resuming_continues_bit_for_bit(run: Run, settings: list[str]) -> None:
    settings = [s.lstrip("+") for s in settings] + ["trainer.val_check_interval=150"]
    straight = run("straight", "trainer.max_steps=400", *settings)
    first = run("first", "trainer.max_steps=230", *settings)  # in the middle of a batch of steps
    resumed = run("resumed", f"checkpoint={first}/checkpoints/last.ckpt", "trainer.max_steps=400")
    assert_same_training(saved(straight), saved(resumed))
    if "compile=true" in settings:
        logs = [(folder / "train.log").read_text() for folder in (straight, first, resumed)]
        assert not any("eagerly" in text for text in logs)
    for name in ("train/loss", "val/loss", "gradient_norm/total", "dead_units/model.blocks.0.activation"):
        expected, found = scalars(straight)[name], scalars(resumed)[name]
        late = {step: value for step, value in expected.items() if step > 230}
        assert {step: found[step] for step in late} == late, name


def test_a_checkpoint_brings_its_overrides_and_refuses_another_model(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run("first", "model.hidden_sizes=[30]", "trainer.max_steps=50", "diagnostics=off", "seed=7")
    checkpoint = f"checkpoint={first}/checkpoints/last.ckpt"
    resumed = run("resumed", checkpoint, "trainer.max_steps=60")
    assert json.loads((resumed / "summary.json").read_text())["seed"] == 7
    assert saved(resumed)["state_dict"]["model.blocks.0.linear.weight"].shape == (30, 30)
    for wrong, message in (
        ("model.hidden_sizes=[31]", "model.hidden_sizes=[31]: the checkpoint was trained with [30]"),
        ("seed=8", "seed: the checkpoint has seed=7, this run has 8"),
        ("trainer.max_steps=50", "trainer.max_steps=50: the checkpoint is at step 50 already"),
    ):
        with pytest.raises(SystemExit) as exit_:
            run("refused", checkpoint, wrong, *(["trainer.max_steps=60"] if "max_steps" not in wrong else []))
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_resume(run: Run, tmp_path: Path, number: signal.Signals, code: int) -> None:
    folder = tmp_path / "interrupted=1"
    arguments = ["model.hidden_sizes=[20]", "trainer.max_steps=100000", "trainer.enable_progress_bar=false"]
    arguments.append("compile=false")  # else such a long run is compiled, and the short one it is compared with is not
    process = subprocess.Popen(
        [sys.executable, "-m", "bnlm.train", *arguments, f"hydra.run.dir='{folder}'", "diagnostics=off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.1)  # the first validation, at step 2,000
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == code, printed
    command = printed.strip().splitlines()[-1].strip()
    assert command.startswith("python -m bnlm.train checkpoint=") or "'checkpoint=" in command
    stopped_at = saved(folder)["global_step"]
    assert f"Stopped at step {stopped_at:,}" in printed
    assert stopped_at % 50 == 0
    assert stopped_at >= 2000

    if number == signal.SIGINT:  # what it says works, and goes on exactly
        import shlex

        resumed = run("resumed", shlex.split(command)[-1], f"trainer.max_steps={stopped_at + 50}")
        straight = run("straight", *arguments[0:1], f"trainer.max_steps={stopped_at + 50}", "diagnostics=off")
        assert_same_training(saved(straight), saved(resumed))


def test_a_full_disk_keeps_what_was_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import errno

    real = os.fsync
    calls = []

    def full_after_the_first_two(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_the_first_two)
    with pytest.raises(SystemExit):
        run("a", "trainer.max_steps=400", "trainer.val_check_interval=100", "diagnostics=off")
    message = capsys.readouterr().err
    assert "no space left on the device" in message
    assert f"checkpoint={tmp_path}/a/checkpoints/last.ckpt" in message
    assert saved(tmp_path / "a")["global_step"] == 100


def test_a_sweep_names_its_folders_and_survives_a_failing_job(
    command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        command(
            "-m",
            f"hydra.sweep.dir={tmp_path}",
            "optimizer.lr=0.1,-1,0.2",
            "model.hidden_sizes=[20]",
            "trainer.max_steps=20",
            "trainer.enable_progress_bar=false",
        )
    assert exit_.value.code == 2
    assert "Invalid learning rate: -1" in capsys.readouterr().err
    named = {"optimizer.lr=0.1", "optimizer.lr=0.2"}
    assert {p.parent.name for p in tmp_path.glob("*/summary.json")} == named
    for name in named:
        assert list((tmp_path / name / "tensorboard").glob("events*"))


def test_val_loss_is_returned_for_sweepers(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    import bnlm.run

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "train",
            [
                "model.hidden_sizes=[20]",
                "trainer.max_steps=20",
                "trainer.enable_progress_bar=false",
                f"logger.save_dir={tmp_path}",
            ],
        )
    summary = bnlm.run.train(cfg, tmp_path)
    assert summary["val/loss"] == json.loads((tmp_path / "summary.json").read_text())["val/loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=mlpp"], "model=mlpp: there is no such option. Did you mean mlp? Accepted: "),
        (["normalization=bach"], "Did you mean batch?"),
        (["modell=mlp"], "there is no key or group 'modell'. Did you mean model?"),
        (["model.n_emb=3"], "model has no key 'n_emb'. Did you mean n_embd? Accepted: n_embd, hidden_sizes"),
        (["seeds=3"], "there is no key or group 'seeds'. Did you mean seed?"),
        (["data.path=x"], "It belongs to data=makemore, data=text, data=words."),
        (["trainer.max_stepz=3"], "Did you mean max_steps?"),
        (["+trainer.max_stepz=3"], "trainer.max_stepz is not an option of lightning.pytorch.Trainer."),
        (["seed.x=3"], "seed is a single value"),
        (["model.n_embd=abc"], "model.n_embd='abc': expected a whole number."),
        (["model.n_embd=2.5"], "model.n_embd=2.5: expected a whole number."),
        (["model.n_embd=true"], "model.n_embd=True: expected a whole number."),
        (["model.n_embd=0"], "model.n_embd=0: expected"),
        (["model.hidden_sizes=5"], "model.hidden_sizes=5: expected a list, each element a whole number."),
        (["model.activation=tanhh"], "Did you mean tanh?"),
        (["optimizer.lr=fast"], "optimizer.lr='fast': expected a number"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["init.gain=big"], "init.gain='big': expected a number or one of auto."),
        (["normalization.momentum=2"], "normalization.momentum=2: expected a number from 0 to 1, or null."),
        (["data.context=0"], "data.context=0: expected a whole number of at least 1."),
        (["data.splits=[0.5,0.1]"], "data.splits=[0.5, 0.1]: expected three numbers above 0 that sum to 1"),
        (["data=words"], "data.path is missing: give it as data.path=VALUE."),
        (["data=words", "data.path=/no/such/file"], "data.path='/no/such/file': no such file"),
        (["trainer.max_steps=many"], "trainer.max_steps='many': expected a whole number"),
        (["trainer.accelerator=abacus"], "invalid accelerator name"),
        (["trainer.accumulate_grad_batches=4"], "accumulate_grad_batches"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1: expected a number above 0"),
        (["trainer.gradient_clip_algorithm=nrm"], "expected norm or value"),
        (["trainer.val_check_interval=0"], "trainer.val_check_interval=0: expected at least 1"),
        (["diagnostics.every_n_steps=0"], "diagnostics.every_n_steps=0: expected a whole number of at least 1"),
        (["steps_per_batch=0"], "steps_per_batch=0: expected a whole number of at least 1."),
        (["threads=0"], "threads=0: expected a whole number of at least 1."),
        (["seed=-1"], "seed=-1: expected a whole number from 0"),
        (["checkpoint=/no/such.ckpt"], "checkpoint=/no/such.ckpt: there is no such file."),
        (["scheduler=cosine", "trainer.max_steps=-1"], "a cosine needs an end"),
        (["logger._target_=no.such.Logger"], "logger._target_=no.such.Logger: there is no such thing"),
        (["model=3"], "must be a string or a list"),
        (["model=mlp,mlp"], "Ambiguous value"),
        (["normalization.eps=${nothing}"], "nothing"),
    ],
)
def test_mistakes_are_one_message_before_training(
    command: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    if arguments == ["trainer.accumulate_grad_batches=4"]:
        arguments = ["+trainer.accumulate_grad_batches=4"]
    with pytest.raises(SystemExit) as exit_:
        command(f"hydra.run.dir={tmp_path}", *arguments)
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in printed.err + printed.out
    assert not (tmp_path / "checkpoints").exists()


def test_whole_floats_are_whole_numbers(run: Run) -> None:
    assert saved(run("a", "trainer.max_steps=2e1", "diagnostics=off"))["global_step"] == 20


def test_a_diverged_run_still_ends_well(run: Run) -> None:
    folder = run(
        "a",
        "optimizer.lr=1e38",
        "model.activation=relu",
        "normalization=none",
        "trainer.max_steps=100",
        "diagnostics.every_n_steps=50",
    )
    summary = json.loads((folder / "summary.json").read_text())  # strict JSON: no NaN
    assert summary["val/loss"] is None
    assert (folder / "samples.txt").read_text() == ""


def test_other_loggers_get_the_scalars(run: Run) -> None:
    folder = run("a", "logger=csv", "trainer.max_steps=50")
    text = (folder / "csv" / "metrics.csv").read_text()
    assert "saturation/model.blocks.0.activation" in text.splitlines()[0]


def test_gradients_are_clipped_as_torch_does_it(run: Run) -> None:
    common = ["trainer.max_steps=1", "optimizer.lr=1", "diagnostics=off", "normalization=none", "optimizer.fused=false"]
    before = saved(run("zero", *common[:1], "optimizer.lr=0", *common[2:]))["state_dict"]
    free = saved(run("free", *common))["state_dict"]
    clipped = saved(run("clipped", *common, "trainer.gradient_clip_val=0.01"))["state_dict"]
    parameters = [torch.nn.Parameter(value.clone()) for value in before.values()]
    for parameter, after in zip(parameters, free.values(), strict=True):
        parameter.grad = parameter.data - after
    torch.nn.utils.clip_grad_norm_(parameters, 0.01)
    for parameter, after in zip(parameters, clipped.values(), strict=True):
        assert parameter.grad is not None
        assert_close(parameter.data - parameter.grad, after, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("experiment", "parameters", "low", "high"),
    [
        ("lecture_1_original", 11_897, 20, 32),
        ("lecture_2_softmax", 11_897, 3.2, 3.4),
        ("lecture_3_tanh", 11_897, 3.2, 3.4),
        ("lecture_4_kaiming", 11_897, 3.2, 3.4),
        ("lecture_5_batchnorm", 12_097, 3.2, 3.4),
        ("lecture_deep", 47_024, 3.2, 3.4),
        ("lecture_deep_plain", 46_497, 3.2, 3.4),
    ],
)
def test_the_lectures_experiments_start_as_in_the_lecture(
    run: Run, makemore_names: Path, experiment: str, parameters: int, low: float, high: float
) -> None:
    folder = run(
        "a",
        f"experiment={experiment}",
        f"data.path={makemore_names}",
        "model.hidden_sizes=" + ("[100,100,100,100,100]" if "deep" in experiment else "[200]"),
        "trainer.max_steps=1",
        "diagnostics=off",
    )
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["examples"] == {"train": 182_625, "val": 22_655, "test": 22_866}
    assert summary["parameters"] == parameters
    assert low < summary["first_loss"] < high


def test_the_naive_start_saturates_more_than_half(run: Run) -> None:
    folder = run("a", "experiment=lecture_1_original", "data=names", "model.hidden_sizes=[200]", "trainer.max_steps=1")
    assert scalars(folder)["saturation/model.blocks.0.activation"][0] > 0.5


def test_lecture_deep_after_a_thousand_steps(run: Run, makemore_names: Path) -> None:
    folder = run(
        "a",
        "experiment=lecture_deep",
        f"data.path={makemore_names}",
        "model.hidden_sizes=[100,100,100,100,100]",
        "trainer.max_steps=1001",
        "diagnostics.figures_every_n_steps=null",
    )
    tags = scalars(folder)
    for layer in range(5):
        assert 0.01 < tags[f"saturation/model.blocks.{layer}.activation"][1000] < 0.05
        assert 0.60 < tags[f"activation_std/model.blocks.{layer}.activation"][1000] < 0.68
        assert 1e-3 < tags[f"activation_gradient_std/model.blocks.{layer}.activation"][1000] < 4e-3
    # The lecture's printed ratios; one batch of 32 is within a factor of two of another.
    published = {"embedding": 8.0e-3, "blocks.0.linear": 4.9e-2, "blocks.1.linear": 7.0e-2, "output.linear": 1.2e-1}
    for name, ratio in published.items():
        assert ratio / 2 < tags[f"grad_to_data/model.{name}.weight"][1000] < ratio * 2
        assert -4 < tags[f"update_to_data/model.{name}.weight"][1000] < -1


def test_two_processes_train_as_one_on_the_joined_batch(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    from bnlm.checkpoint import build_model
    from bnlm.data import minibatch_indices

    arguments = [
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
        "trainer.max_steps=20",
        "model.hidden_sizes=[20]",
        "normalization=none",
        "data.batch_size=16",
        "diagnostics.every_n_steps=10",
        f"hydra.run.dir={tmp_path}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bnlm.train", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Run folder:") == 1
    checkpoint = saved(tmp_path)

    # The same run by hand, in one process: both ranks' minibatches in one batch.
    configuration = OmegaConf.create(checkpoint["bnlm"]["configuration"]["config"])
    model = build_model(configuration, 27, "")
    from bnlm.config import build

    build(configuration.init, "init")(model, generator=torch.Generator().manual_seed(0))
    contexts, targets = WordsDataModule().examples("train")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(20):
        index = torch.cat([minibatch_indices(len(targets), 16, step, step + 1, 0, rank)[0] for rank in (0, 1)])
        loss = torch.nn.functional.cross_entropy(model(contexts[index]), targets[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for name, value in model.state_dict().items():
        assert_close(checkpoint["state_dict"][f"model.{name}"], value, rtol=1e-5, atol=1e-6)
    tags = scalars(tmp_path)
    assert list(tags["train/loss"].values()) == pytest.approx(losses, rel=1e-5)
    assert list(tags["saturation/model.blocks.0.activation"]) == [0, 10]
    summary = json.loads((tmp_path / "summary.json").read_text())
    data = WordsDataModule()
    for split in ("train", "val", "test"):
        expected = evaluate(model.eval(), 27, data.evaluation_dataloader(split))
        assert summary[f"{split}/loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert summary[f"{split}/accuracy"] == pytest.approx(expected["accuracy"], abs=1e-3)


def test_the_doctor_is_heard(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(
        "sick", "experiment=lecture_1_original", "data=names", "trainer.max_steps=100", "diagnostics.preflight=true"
    )
    findings = json.loads((folder / "findings.json").read_text())
    found = [finding["rule"] for finding in findings if finding["severity"] != "note"]
    assert found[:2] == ["R02", "R01"]
    assert "R03" in found
    assert capsys.readouterr().out.count("overconfident_output") >= 2  # before and after training


@pytest.mark.parametrize(
    ("experiment", "worse"),
    [
        ("lecture_2_softmax", {"R03"}),
        ("lecture_4_kaiming", set()),
        ("lecture_5_batchnorm", set()),
        ("lecture_deep", set()),
    ],
)
def test_what_the_doctor_says_of_the_lectures_networks(run: Run, experiment: str, worse: set[str]) -> None:
    folder = run(
        "a", f"experiment={experiment}", "data=names", "trainer.max_steps=1000", "diagnostics.every_n_steps=50"
    )
    findings = json.loads((folder / "findings.json").read_text())
    assert {finding["rule"] for finding in findings if finding["severity"] != "note"} == worse


def test_a_critical_finding_can_end_the_run(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = [
        "experiment=lecture_1_original",
        "data=names",
        "diagnostics.on_critical=raise",
        f"hydra.run.dir={tmp_path}",
    ]
    with pytest.raises(SystemExit) as exit_:
        command("trainer.max_steps=100", *options)
    assert exit_.value.code not in (0, None)
    assert "diagnostics.on_critical=raise: R02 overconfident_output" in capsys.readouterr().err


def test_the_command_imports_what_trains_only_to_train() -> None:
    code = (
        "import sys, bnlm.train; sys.exit(bool({'torch', 'lightning', 'tensorboard', 'matplotlib'} & {*sys.modules}))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
