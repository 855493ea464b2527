"""Checkpoints are read safely, written whole, and bad ones are named."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bnlm.checkpoint import load_model, read_checkpoint
from bnlm.checkpoint_io import AtomicCheckpointIO
from bnlm.config import ConfigError


class Payload:
    """Would run a command when unpickled."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.flag),)


def test_damaged_and_foreign_files_are_named(tmp_path: Path, run: Callable[..., Path]) -> None:
    good = run("a", "trainer.max_steps=5", "diagnostics=off") / "checkpoints" / "last.ckpt"
    assert load_model(good)[1].characters == "abcdefghijklmnopqrstuvwxyz"
    whole = good.read_bytes()
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "cannot be read as a checkpoint"),
        "text": (b"hello world, this is no checkpoint", "cannot be read as a checkpoint"),
        "half": (whole[: len(whole) // 2], "cannot be read as a checkpoint"),
        "flipped": (whole[:2000] + bytes(200) + whole[2200:], "checkpoint="),
    }
    for name, (content, message) in cases.items():
        path = tmp_path / f"{name}.ckpt"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=message) as error:
            load_model(path)
        assert str(path) in str(error.value)
    foreign = tmp_path / "foreign.ckpt"
    for content in ({"state_dict": {}, "epoch": 3}, [1, 2], torch.zeros(3)):
        torch.save(content, foreign)
        with pytest.raises(ConfigError, match=r"not written by bnlm\.train"):
            read_checkpoint(foreign)
    with zipfile.ZipFile(foreign, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_checkpoint(foreign)
    with pytest.raises(ConfigError, match="this is a folder"):
        read_checkpoint(tmp_path)


def test_nothing_in_a_file_is_executed(tmp_path: Path, run: Callable[..., Path]) -> None:
    flag = tmp_path / "executed"
    torch.save({"bnlm": Payload(flag), "state_dict": {}}, tmp_path / "evil.ckpt")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_checkpoint(tmp_path / "evil.ckpt")
    good = run("a", "trainer.max_steps=5", "diagnostics=off") / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(good, weights_only=True)
    for group, node in (
        ("model", {"_target_": "os.mkdir", "path": str(flag)}),
        ("normalization", {"_target_": "torch.nn.Identity", "x": [{"_target_": "os.mkdir", "path": str(flag)}]}),
    ):
        checkpoint["bnlm"]["configuration"]["config"][group] = node
        torch.save(checkpoint, tmp_path / "evil.ckpt")
        with pytest.raises(ConfigError, match=r"not an nn\.Module|not installed"):
            load_model(tmp_path / "evil.ckpt")
    assert not flag.exists()


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / "last.ckpt"
    io = AtomicCheckpointIO()
    io.save_checkpoint({"step": 1}, path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        io.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
