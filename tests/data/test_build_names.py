import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "src" / "bnlm" / "data" / "names.txt"


@pytest.fixture
def build_names() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_names", ROOT / "scripts" / "build_names.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_names_in_file_order_lower_cased_with_duplicates(
    build_names: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "yob.txt", tmp_path / "names.txt"
    source.write_bytes(b"Zoe,F,18\r\nRiver,F,9\r\nAdam,M,20\r\nRiver,M,7\r\n")
    monkeypatch.setattr(sys, "argv", ["build_names.py", str(source), "--output", str(output)])
    build_names.main()
    assert output.read_bytes() == b"zoe\nriver\nadam\nriver\n"
    assert f"4 words, sha256 {hashlib.sha256(output.read_bytes()).hexdigest()}" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["Emma", "Emma,F", "Emma,F,many", "Emma,X,5", ",F,5", ""])
def test_another_kind_of_file_is_refused(build_names: ModuleType, line: str) -> None:
    with pytest.raises(ValueError, match=r"line 2 is .*: expected Name,Sex,Count"):
        build_names.names_from_ssa(["Ava,F,6", line, "Mia,F,5"])


def test_shipped_list_is_what_its_note_says() -> None:
    content = SHIPPED.read_bytes()
    words = content.decode("ascii").split("\n")
    note = (SHIPPED.parent / "NAMES.md").read_text(encoding="utf-8")
    assert words.pop() == ""  # one line end after the last word
    assert all(word.isalpha() and word.islower() for word in words)
    assert f"{len(words):,} words" in note
    assert f"{len(set(words)):,} are distinct" in note
    assert hashlib.sha256(content).hexdigest() in note


def test_shipped_list_contains_the_lectures(makemore_names: Path) -> None:
    shipped = set(SHIPPED.read_text(encoding="utf-8").split())
    assert set(makemore_names.read_text(encoding="utf-8").split()) <= shipped
