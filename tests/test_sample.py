"""Spelling new words."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bnlm import sample as command
from bnlm.data import Vocabulary
from bnlm.models import Recurrent, Transformer
from bnlm.sample import MAX_LENGTH, lines, origins, sample


class Bigrams(nn.Module):
    """Logits that depend on the last character only."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, contexts: Tensor) -> Tensor:
        return self.logits[contexts[:, -1]]


VOCABULARY = Vocabulary("ab")


def test_characters_come_with_the_models_probabilities() -> None:
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.5, 0.25, 0.25], [0.7, 0.1, 0.2]])
    words = sample(Bigrams(probabilities.log()), VOCABULARY, context=3, n=20_000, seed=1)
    first = Counter(word[:1] for word in words)
    for mark, expected in zip(("", "a", "b"), probabilities[0], strict=True):
        # four standard deviations of a binomial share
        assert abs(first[mark] / 20_000 - expected) < 4 * (expected * (1 - expected) / 20_000) ** 0.5
    assert Counter(words)["ab"] / 20_000 == pytest.approx(0.5 * 0.25 * 0.7, abs=0.01)


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]] * 3)
    words = sample(Bigrams(logits), VOCABULARY, context=1, n=20_000, temperature=2.0, seed=1)
    expected = (logits[0] / 2).softmax(0)
    assert sum(word == "" for word in words) / 20_000 == pytest.approx(float(expected[0]), abs=0.015)


def test_temperature_zero_takes_the_likeliest_and_words_that_do_not_end_are_cut() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0], [0.0, 1.0, 0.5]])
    assert sample(Bigrams(logits), VOCABULARY, context=2, n=3, temperature=0) == ["ba"] * 3
    endless = torch.tensor([[-1e9, 1.0, 2.0]] * 3)
    assert {len(word) for word in sample(Bigrams(endless), VOCABULARY, context=2, n=3)} == {MAX_LENGTH}


def test_top_k_leaves_the_others_out() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.5]] * 3)
    words = sample(Bigrams(logits), VOCABULARY, context=2, n=500, top_k=2)
    assert "a" not in "".join(words)
    assert "b" in "".join(words)


def test_prefix_and_seed() -> None:
    model = Bigrams(torch.zeros(3, 3))
    words = sample(model, VOCABULARY, context=2, n=50, prefix="ba", seed=3)
    assert all(word.startswith("ba") for word in words)
    assert words == sample(model, VOCABULARY, context=2, n=50, prefix="ba", seed=3)
    assert words != sample(model, VOCABULARY, context=2, n=50, prefix="ba", seed=4)
    assert sample(model, VOCABULARY, context=2, n=0) == []


def test_the_model_is_used_in_evaluation_mode_and_given_back_as_it_was() -> None:
    model = nn.Sequential(Bigrams(torch.zeros(3, 3)), nn.Dropout(1.0))
    model[0].logits.data[:] = torch.tensor([0.0, 0.0, 9.0])
    assert set(sample(model.train(), VOCABULARY, context=1, n=5, temperature=0)) == {"b" * MAX_LENGTH}
    assert model.training


class Memory(nn.Module):
    """A sequence model that spells `abab...` and ends after as many characters as it sees at most but one."""

    sequence = True

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.widths: list[int] = []

    def forward(self, idx: Tensor) -> Tensor:
        self.widths.append(idx.shape[1])
        assert bool((idx[:, 1:] != 0).all())  # no word that has ended, and no padding
        following = torch.where(idx == 1, 2, 1)
        following[:, 3:] = 0
        return nn.functional.one_hot(following, 3).float() * 50


def test_sequence_models_see_the_whole_word() -> None:
    model = Memory()
    assert sample(model, VOCABULARY, context=9, n=2) == ["aba"] * 2
    assert model.widths == [1, 2, 3, 4]
    assert sample(model, VOCABULARY, context=9, n=1, prefix="bb") == ["bba"]
    assert len(sample(model, VOCABULARY, context=3, n=1)[0]) == MAX_LENGTH  # it never sees enough to end
    assert max(model.widths[-MAX_LENGTH:]) == 3


@pytest.mark.parametrize("model", [Recurrent(3, 5, "lstm", 4, 4), Transformer(3, 5, 1, 2, 4)])
def test_every_sequence_model_can_be_sampled(model: nn.Module) -> None:
    words = sample(model, VOCABULARY, context=5, n=30, seed=2)
    assert len(words) == 30
    assert set("".join(words)) == {"a", "b"}


def test_where_words_come_from() -> None:
    found = origins(["ab", "b", "a", "bb"], {"train": ["ab", "b"], "val": ["b", "a"], "test": []})
    assert found == ["train", "train", "val/test", "new"]
    assert lines(["ab", ""], ["train", "new"]) == "ab\ttrain\n\tnew\n"
    assert lines(["ab"], [None]) == "ab\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n=-1: expected a whole number of at least 0"),
        ({"temperature": -0.5}, "temperature=-0.5: expected a number of at least 0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_k": 0}, "top_k=0: expected a whole number from 1 to 3, or null"),
        ({"top_k": 4}, "top_k=4"),
        ({"prefix": "abc"}, "prefix='abc'.*'c'"),
    ],
)
def test_values_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(Bigrams(torch.zeros(3, 3)), VOCABULARY, context=1, **options)  # type: ignore[arg-type]


def test_outputs_that_are_not_finite_are_said() -> None:
    with pytest.raises(ValueError, match="not finite"):
        sample(Bigrams(torch.full((3, 3), float("nan"))), VOCABULARY, context=1)


def test_the_command(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run("a", "trainer.max_steps=50", "diagnostics=off")
    checkpoint = f"checkpoint={folder}/checkpoints/last.ckpt"

    def call(*arguments: str) -> tuple[str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["bnlm.sample", *arguments])
        command.main()
        printed = capsys.readouterr()
        return printed.out, printed.err

    assert call(checkpoint)[0] == (folder / "samples.txt").read_text()  # the same seed
    assert len(call(checkpoint, "n=3")[0].splitlines()) == 3
    assert all(word.startswith("no") for word in call(checkpoint, "prefix=no", "top_k=null")[0].splitlines())
    entries = json.loads(call(checkpoint, "n=5", "--json")[0])
    assert [f"{entry['word']}\t{entry['origin']}" for entry in entries] == call(checkpoint, "n=5")[0].splitlines()
    assert "temperature" in call("--help")[0]
    for wrong, message in (
        ([checkpoint, "prefix=é"], "é"),
        ([checkpoint, "temperatur=1"], "Did you mean temperature=?"),
        ([checkpoint, "n=many"], "n=many: expected a whole number."),
        ([checkpoint, "top_k=1.5"], "top_k=1.5: expected a whole number or null."),
        ([checkpoint, "json=yes"], "json=yes: expected true or false."),
        ([], "checkpoint is missing"),
        (["checkpoint=/no/such"], "there is no such file"),
    ):
        with pytest.raises(SystemExit) as exit_:
            call(*wrong)
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
