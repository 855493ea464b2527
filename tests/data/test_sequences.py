import pytest
import torch

from bnlm.data import IGNORED, Vocabulary, WordsDataModule, sequences, windows

WORDS = ["zoé", "ab", "", "obéz"]
VOCABULARY = Vocabulary.from_words(WORDS)  # abozé


def test_inputs_and_targets_by_hand() -> None:
    inputs, targets = sequences(WORDS, VOCABULARY, 6)
    a, b, o, z, e = (VOCABULARY.encode(c)[0] for c in "abozé")
    pad = IGNORED
    assert inputs.tolist() == [[0, z, o, e, 0, 0], [0, a, b, 0, 0, 0], [0] * 6, [0, o, b, e, z, 0]]
    assert targets.tolist() == [[z, o, e, 0, pad, pad], [a, b, 0, *[pad] * 3], [0, *[pad] * 5], [o, b, e, z, 0, pad]]


def test_they_predict_what_windows_predict() -> None:
    _, of_windows = windows(WORDS, VOCABULARY, 2)
    _, targets = sequences(WORDS, VOCABULARY, 5)
    assert torch.equal(targets[targets != IGNORED], of_windows)


def test_words_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^'obéz': has 4 characters; expected at most 3\."):
        sequences(WORDS, VOCABULARY, 4)


def test_the_datamodule_pads_to_the_longest_word_of_all_splits() -> None:
    data = WordsDataModule(sequence=True)
    assert data.context == 16
    of_windows = WordsDataModule()
    for split in ("train", "val", "test"):
        inputs, targets = data.examples(split)
        assert inputs.shape == targets.shape == (len(data.words[split]), 16)
        counted = int((targets != IGNORED).sum())
        assert data.n_characters(split) == counted == len(of_windows.examples(split)[1])


def test_a_very_long_word_is_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/words.txt"
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(["ab" * 501, *["rose", "oak"] * 6]))
    with pytest.raises(ValueError, match=r"^data\.path=.*: the word 'abab.* has 1,002 characters.*at most 1,000"):
        WordsDataModule(path, sequence=True)
    WordsDataModule(path)
