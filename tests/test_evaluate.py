"""Scoring a split with a trained model."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bnlm import evaluate as command


def test_it_repeats_the_summarys_numbers(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"wörd{'abcdefgh'[i % 8]}{'xyz'[i % 3]}" for i in range(100)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    folder = run("a", "data=words", "data.path=words.txt", "trainer.max_steps=50", "diagnostics=off")
    summary = json.loads((folder / "summary.json").read_text())
    monkeypatch.chdir("/")  # the checkpoint knows where its words are

    def call_raw(*arguments: str) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["bnlm.evaluate", f"checkpoint={folder}/checkpoints/last.ckpt", *arguments])
        command.main()
        return capsys.readouterr().out

    def call(*arguments: str) -> dict[str, float]:
        lines = [line.split() for line in call_raw(*arguments).splitlines()]
        return {name: float(value) for name, value in lines}

    for split in ("train", "val", "test"):
        found = call(f"split={split}")
        assert set(found) == {f"{split}/{name}" for name in ("loss", "perplexity", "bits_per_char", "accuracy")}
        for name, value in found.items():
            assert value == pytest.approx(summary[name], abs=1e-6)
    assert call() == call("split=val")

    with pytest.raises(SystemExit) as exit_:
        call("split=dev")
    assert exit_.value.code == 2
    assert "split=dev: expected one of train, val, test." in capsys.readouterr().err
    assert json.loads(call_raw("--json"))["val/loss"] == pytest.approx(summary["val/loss"], abs=1e-9)

    printed = call_raw("words=[wörda, wörd]").splitlines()
    assert [line.split()[0] for line in printed] == ["word", "wörda", "wörd"]
    first, second = json.loads(call_raw("words=[wörda,wörd]", "json=true"))
    assert [entry["character"] for entry in first["characters"]] == [*"wörda", "."]
    assert second["loss"] == pytest.approx(-second["log_probability"] / 5)
    assert f"{first['log_probability']:.3f}" in printed[1]
    for wrong, message in (
        ("words=[ada,quid]", "words: 'quid' has unknown characters 'i', 'q', 'u'"),
        ("words=wörd", "words=wörd: expected a list of texts, such as words=[ada,grace]."),
        ("words=[]", "words=[]: expected a list of texts"),
        ("words=[true]", "words: 'true' has unknown characters 't', 'u'"),
    ):
        with pytest.raises(SystemExit):
            call_raw(wrong)
        assert message in capsys.readouterr().err

    words.write_text("other\nwords\n" * 50, encoding="utf-8")
    with pytest.raises(SystemExit):
        call()
    assert "it has other characters now" in capsys.readouterr().err
    words.unlink()
    with pytest.raises(SystemExit):
        call()
    assert "no such file" in capsys.readouterr().err
