import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from bnlm.data import WordsDataModule

CONF = Path(__file__).resolve().parents[2] / "conf"
TOP_LEVEL = ["+seed=5", "+steps_per_batch=9"]


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def data_config(*overrides: str) -> DictConfig:
    return compose(overrides=[*TOP_LEVEL, *overrides]).data


def test_names_is_the_shipped_list() -> None:
    config = data_config("+data=names")
    data = instantiate(config)
    assert isinstance(data, WordsDataModule)
    assert data.words == WordsDataModule().words
    assert (data.seed, data.steps_per_batch) == (5, 9)


def test_defaults_agree_with_the_code() -> None:
    config = OmegaConf.to_container(data_config("+data=names"), resolve=True)
    assert isinstance(config, dict)
    defaults = {name: parameter.default for name, parameter in inspect.signature(WordsDataModule).parameters.items()}
    own = {key: value for key, value in config.items() if key not in ("_target_", "seed", "steps_per_batch")}
    assert own == {key: list(defaults[key]) if key == "splits" else defaults[key] for key in own}
    assert set(defaults) - set(own) == {"path", "url", "sha256", "seed", "steps_per_batch", "sequence"}


def test_the_options_share_what_they_do_not_change() -> None:
    options = (data_config(f"+data={option}") for option in ("names", "makemore", "words"))
    names, makemore, words = (OmegaConf.to_container(option, resolve=False) for option in options)
    assert isinstance(names, dict)
    assert isinstance(makemore, dict)
    assert isinstance(words, dict)
    assert {key: makemore[key] for key in names} == names == {key: words[key] for key in names}
    assert set(makemore) - set(names) == {"path", "url", "sha256"}
    assert set(words) - set(names) == {"path"}


def test_makemore_has_the_checksum_and_takes_a_copy(makemore_names: Path) -> None:
    data = instantiate(data_config("+data=makemore", f"data.path={makemore_names}"))
    assert len(data.words["train"]) == 25_626  # int(0.8 * 32033)
    assert len(data.examples("train")[1]) == 182_625


def test_makemore_refuses_another_list(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("ava\n", encoding="utf-8")
    with pytest.raises(Exception, match=r"data\.path='.*': its sha256 is .*expected 0a30b555"):
        instantiate(data_config("+data=makemore", f"data.path={tmp_path / 'other.txt'}"))


def test_words_takes_any_list(tmp_path: Path) -> None:
    config = data_config("+data=words")
    assert OmegaConf.is_missing(config, "path")  # asked for, never silently the shipped names
    (tmp_path / "mine.txt").write_text("\n".join(["rose", "oak", "elm", "ash"] * 3), encoding="utf-8")
    data = instantiate(data_config("+data=words", f"data.path={tmp_path / 'mine.txt'}", "data.context=5"))
    assert data.vocabulary.characters == "aehklmors"
    assert data.context == 5
