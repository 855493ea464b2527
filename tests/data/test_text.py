"""Running text instead of a list of words."""

from pathlib import Path

import pytest
import torch

from bnlm.data import TextDataModule, read_text, text, text_datamodule
from bnlm.data.vocabulary import END

TEXT = "".join(f"line {i} of the Fäße, naïve\r\nor not. " for i in range(40))


def write(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "text.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 22])
@pytest.mark.parametrize("content", [TEXT, TEXT.replace("\r\n", " "), "日本語のテキスト" * 20, "ab"])
def test_ids_spell_the_text_whatever_the_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, content: str
) -> None:
    monkeypatch.setattr(text, "CHUNK", chunk)
    ids, vocabulary = read_text(write(tmp_path, "\ufeff" + content))
    plain = content.replace("\r\n", "\n")
    assert vocabulary.characters == "".join(sorted(set(plain)))
    assert vocabulary.decode(ids) == plain
    assert ids.dtype == torch.uint8


def test_accents_are_composed_and_many_characters_take_more_bytes(tmp_path: Path) -> None:
    ids, vocabulary = read_text(write(tmp_path, "e\u0301a"))
    assert vocabulary.decode(ids) == "éa"
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 300)))
    ids, vocabulary = read_text(write(tmp_path, many))
    assert (ids.dtype, vocabulary.decode(ids)) == (torch.int16, many)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.path=.*: the file is empty"):
        read_text(write(tmp_path, b"\xef\xbb\xbf"))
    with pytest.raises(ValueError, match=r"^data\.path=.*: line 2 is not UTF-8 \(byte 0xff"):
        read_text(write(tmp_path, b"abc\nd\xff"))
    with pytest.raises(ValueError, match=r"^data\.path=.*: no such file"):
        TextDataModule(str(tmp_path / "gone.txt"))
    with pytest.raises(ValueError, match=r"of its 50 characters 5 are left for the val split; expected more than data"):
        TextDataModule(write(tmp_path, "ab" * 25))


def test_windows_are_the_texts_and_take_no_memory(tmp_path: Path) -> None:
    data = TextDataModule(write(tmp_path, TEXT), context=5)
    plain = TEXT.replace("\r\n", "\n")
    n = len(plain)
    parts = {"train": plain[: int(0.8 * n)], "val": plain[int(0.8 * n) : int(0.9 * n)], "test": plain[int(0.9 * n) :]}
    for split, part in parts.items():
        inputs, targets = data.examples(split)
        assert inputs.untyped_storage().data_ptr() == targets.untyped_storage().data_ptr()
        assert data.n_characters(split) == len(inputs) == len(targets) == len(part) - 5
        for i in (0, 17, len(part) - 6):
            assert data.vocabulary.decode([*inputs[i], targets[i]]) == part[i : i + 6]
    assert data.start_id(data.vocabulary) == data.vocabulary.encode("\n")[0]


def test_sequences_predict_every_place_once_in_evaluation(tmp_path: Path) -> None:
    data = TextDataModule(write(tmp_path, TEXT), context=5, sequence=True, eval_batch_size=3)
    inputs, targets = data.examples("train")
    assert data.vocabulary.decode(inputs[9]) + data.vocabulary.decode(targets[9])[-1] == TEXT[9:15]
    assert torch.equal(inputs[1:, :], targets[:-1, :])
    judged = torch.cat([batch for _, batch in data.evaluation_dataloader("val")])
    assert judged.dtype == torch.int64
    assert torch.equal(judged.flatten(), data.ids["val"][1 : 1 + judged.numel()].long())
    assert judged.numel() > len(data.ids["val"]) - 6


def test_long_splits_are_judged_by_a_spread_of_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_datamodule, "MAX_EVALUATED", 100)
    data = TextDataModule(write(tmp_path, TEXT), context=5)
    inputs, targets = data.evaluation_examples("train")
    assert 50 < len(targets) <= 100
    assert torch.equal(inputs[1], data.examples("train")[0][-(-data.n_characters("train") // 100)])


def test_a_text_without_lines_starts_from_nothing(tmp_path: Path) -> None:
    data = TextDataModule(write(tmp_path, "abc " * 60), context=5)
    assert data.start_id(data.vocabulary) == END
    assert data.state_dict() == TextDataModule(write(tmp_path, "abc " * 60), context=5).state_dict()
    with pytest.raises(ValueError, match=r"the checkpoint has train_sha256="):
        TextDataModule(write(tmp_path, "bac " * 60), context=5).load_state_dict(data.state_dict())
