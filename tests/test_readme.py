"""What the README shows can be done."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from bnlm.config import CONF

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*GPU available.*")
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})
    assert list(tmp_path.glob("runs/**/events.out.tfevents*"))


def test_every_option_is_named_and_every_named_option_exists() -> None:
    groups = {
        "data": 4, "model": 8, "init": 9, "normalization": 11, "optimizer": 2, "scheduler": 4, "diagnostics": 3,
        "trainer": 3, "logger": 2,
    }  # fmt: skip
    for group, count in groups.items():
        options = [file.stem for file in (CONF / group).glob("*.yaml")]
        assert len(options) == count, group
        for option in options:
            assert f"`{option}`" in README, f"{group}={option}"
    for experiment in re.findall(r"`(lecture_\w+)", README):
        assert (CONF / "experiment" / f"{experiment}.yaml").is_file() or experiment == "lecture_"


def test_the_commands_it_names_parse(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        command("--help")
    assert exit_.value.code in (0, None)
    assert "normalization" in capsys.readouterr().out
