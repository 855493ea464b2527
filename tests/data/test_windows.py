import time
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from bnlm.data import Vocabulary, read_words, split_words, windows


def naive_windows(words: list[str], vocabulary: Vocabulary, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain loop: slide over each word and its end mark, one character at a time."""
    ids = {character: i + 1 for i, character in enumerate(vocabulary.characters)}
    inputs, targets = [], []
    for word in words:
        window = [0] * context
        for following in [*(ids[character] for character in word), 0]:
            inputs.append(window)
            targets.append(following)
            window = [*window[1:], following]
    return torch.tensor(inputs), torch.tensor(targets)


@pytest.mark.parametrize("context", [1, 2, 3, 8, 20])
def test_equals_the_plain_loop(context: int) -> None:
    words = ["emma", "o", "olivia", "st.john", "emma", "zoé", "", "abcdefghijklmnop"]
    vocabulary = Vocabulary.from_words(words)
    contexts, targets = windows(words, vocabulary, context)
    expected_contexts, expected_targets = naive_windows(words, vocabulary, context)
    assert contexts.dtype == targets.dtype == torch.int64
    assert contexts.is_contiguous()
    assert_close(contexts, expected_contexts, rtol=0, atol=0)
    assert_close(targets, expected_targets, rtol=0, atol=0)


def test_the_lectures_first_word() -> None:
    contexts, targets = windows(["emma"], Vocabulary("aem"), 3)
    assert contexts.tolist() == [[0, 0, 0], [0, 0, 2], [0, 2, 3], [2, 3, 3], [3, 3, 1]]
    assert targets.tolist() == [2, 3, 3, 1, 0]


def test_no_words() -> None:
    contexts, targets = windows([], Vocabulary("ab"), 3)
    assert contexts.shape == (0, 3)
    assert targets.shape == (0,)


def test_long_words_and_long_lists_are_quick() -> None:
    words = ["ab" * 50_000] + ["abbabab"] * 32_000
    start = time.perf_counter()
    contexts, targets = windows(words, Vocabulary("ab"), 8)
    assert time.perf_counter() - start < 3  # seconds; takes about 0.1
    assert contexts.shape == (100_001 + 32_000 * 8, 8)
    assert targets[100_000] == 0
    assert contexts[100_000].tolist() == [1, 2] * 4
    assert contexts[100_001].tolist() == [0] * 8  # the next word knows nothing of the one before


@pytest.mark.parametrize("context", [0, -1, True, 3.0, "3", None])
def test_bad_context(context: object) -> None:
    with pytest.raises(ValueError, match=rf"^data\.context={context!r}: expected a whole number of at least 1\.$"):
        windows(["ava"], Vocabulary("av"), context)  # type: ignore[arg-type]


def test_unknown_character() -> None:
    with pytest.raises(ValueError, match="unknown characters 'x'"):
        windows(["ava", "axv"], Vocabulary("av"), 2)


@pytest.mark.parametrize("context", [3, 8])
def test_counts_of_the_lecture(makemore_names: Path, context: int) -> None:
    words = read_words(makemore_names)
    vocabulary = Vocabulary.from_words(words)
    assert len(words) == 32_033
    assert len(vocabulary) == 27
    parts = [windows(part, vocabulary, context) for part in split_words(words, [0.8, 0.1, 0.1], 42)]
    assert [tuple(contexts.shape) for contexts, _ in parts] == [(n, context) for n in (182_625, 22_655, 22_866)]
    assert [len(targets) for _, targets in parts] == [182_625, 22_655, 22_866]
