"""Every model as the training command runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bnlm.config import CONF

Run = Callable[..., Path]
#: The activations whose saturation (of relu-like ones: dead units) is shown, for each model.
SHOWN = {
    "bigram": [],
    "bow": ["saturation/model.hidden.activation"],
    "gru": ["saturation/model.cell.sigmoid", "saturation/model.cell.tanh", "saturation/model.cell.tanh_1"],
    "lstm": ["saturation/model.cell.sigmoid_1", "saturation/model.cell.tanh"],
    "mlp": ["saturation/model.blocks.0.activation"],
    "rnn": ["saturation/model.cell.tanh"],
    "transformer": ["activation_std/model.blocks.3.mlp.hidden.activation"],
    "wavenet": ["saturation/model.levels.1.activation"],
}


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_no_model_is_left_out() -> None:
    assert set(SHOWN) == {path.stem for path in (CONF / "model").glob("*.yaml")}


@pytest.mark.parametrize("model", [name for name in SHOWN if name != "mlp"])
def test_a_run_of_each_model(
    model: str, command: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["diagnostics.every_n_steps=10", "diagnostics.preflight=true", "trainer.enable_progress_bar=false"]
    command(f"hydra.run.dir={tmp_path}", f"model={model}", "trainer.max_steps=20", *options)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["examples"] == {"train": 183430, "val": 22953, "test": 22818}  # the same predictions for all
    assert summary["val/loss"] < summary["first_loss"] + 0.1
    lines = (tmp_path / "samples.txt").read_text().splitlines()
    assert {line.partition("\t")[2] for line in lines} <= {"train", "val/test", "new"}
    tags = events(tmp_path).Tags()
    assert set(SHOWN[model]) <= set(tags["scalars"])
    assert "samples/text_summary" in tags["tensors"]


def test_a_sequence_model_resumes_bit_for_bit(command: Callable[..., None], tmp_path: Path) -> None:
    settings = ["model=gru", "optimizer=adamw", "diagnostics=off", "trainer.enable_progress_bar=false"]
    command(f"hydra.run.dir={tmp_path}/straight", "trainer.max_steps=60", *settings)
    command(f"hydra.run.dir={tmp_path}/first", "trainer.max_steps=30", *settings)
    checkpoint = f"checkpoint={tmp_path}/first/checkpoints/last.ckpt"
    command(f"hydra.run.dir={tmp_path}/resumed", checkpoint, "trainer.max_steps=60")
    straight, resumed = saved(tmp_path / "straight"), saved(tmp_path / "resumed")
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_running_text(
    model: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bnlm import evaluate, sample

    path = tmp_path / "play.txt"
    path.write_text("".join(f"Speaker {i % 7}:\nTo be, or not to bé?\n\n" for i in range(300)), encoding="utf-8")
    small = [] if model == "mlp" else ["model.n_layer=1", "model.hidden_sizes=null"][:1]
    given = ["data=text", f"data.path={path}", "data.context=8", f"model={model}", "trainer.max_steps=60", *small]
    arguments = ["diagnostics=off", "trainer.enable_progress_bar=false", *given]
    if model == "mlp":
        folder = run("a", *arguments)
    else:
        from bnlm import train

        folder = tmp_path / "a"
        monkeypatch.setattr("sys.argv", ["bnlm.train", f"hydra.run.dir={folder}", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        train.main()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["val/loss"] < summary["first_loss"]
    checkpoint = f"checkpoint={folder}/checkpoints/last.ckpt"
    for command, arguments in ((sample, ["n=2", "prefix=To b", "--json"]), (evaluate, ["words=[To be]", "--json"])):
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["bnlm", checkpoint, *arguments])
        command.main()
        entries = json.loads(capsys.readouterr().out)
        assert all(entry["word"].startswith("To b") for entry in entries)
    assert [each["character"] for each in entries[0]["characters"]] == list("To be")
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["bnlm", checkpoint, "split=test"])
    evaluate.main()
    assert float(capsys.readouterr().out.split()[1]) == pytest.approx(summary["test/loss"], abs=1e-6)


def test_experiments_have_the_lectures_sizes() -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    sizes = {"wavenet": 76_579, "wavenet_flat_3": 12_097, "wavenet_flat_8": 22_097, "makemore_transformer": 204_544}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for experiment, size in sizes.items():
            config = compose("train", [f"experiment={experiment}"])
            context = 16 if experiment == "makemore_transformer" else config.data.context
            normalization = instantiate(config.normalization)
            model = instantiate(config.model, vocab_size=27, context=context, normalization=normalization)
            assert sum(p.numel() for p in model.parameters()) == size, experiment


def test_makemores_transformer_starts_as_torch_builds_it() -> None:
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=makemore_transformer"])
    model = instantiate(config.model, vocab_size=27, context=16, normalization=instantiate(config.normalization))
    built = {name: value.clone() for name, value in model.state_dict().items()}
    words = torch.randint(27, (4, 16), generator=torch.Generator().manual_seed(0))
    instantiate(config.init)(model, example=words, generator=torch.Generator().manual_seed(0))
    for name, value in model.state_dict().items():
        assert torch.equal(value, built[name]), name
