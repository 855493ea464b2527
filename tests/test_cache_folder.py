"""Compiled code is kept in the user's cache folder, unless the user says where."""

import os
from pathlib import Path

import pytest

from bnlm.cache_folder import keep_compiled_code

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "")  # so that the value of before comes back afterwards
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_torch_is_told_of_the_users_cache_folder(tmp_path: Path) -> None:
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    keep_compiled_code()
    assert cache_dir() == str(tmp_path / "bnlm" / "compiled")


def test_a_folder_that_the_user_names_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/somewhere")
    keep_compiled_code()
    assert os.environ[VARIABLE] == "/somewhere"


def test_a_folder_that_cannot_be_made_leaves_it_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled_code()
    assert VARIABLE not in os.environ
