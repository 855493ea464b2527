import random
import re
from pathlib import Path

import pytest
import torch

from bnlm.data import read_words, split_words


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "words.txt"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"ava\nmia\nzoe\n", ["ava", "mia", "zoe"]),
        (b"ava\nmia", ["ava", "mia"]),
        (b"ava\r\nmia\r\n", ["ava", "mia"]),
        (b"ava\rmia\r", ["ava", "mia"]),
        (b"\xef\xbb\xbfava\nmia\n", ["ava", "mia"]),
        (b"  ava \n\tmia\t\n", ["ava", "mia"]),
        (b"\n\nava\n \n\r\nmia\n\n", ["ava", "mia"]),
        (b"mia\nava\nmia\n", ["mia", "ava", "mia"]),
        ("zoé\nåsa\nЮля\n名前\n".encode(), ["zoé", "åsa", "Юля", "名前"]),
        (b"mary ann\nst. john\n", ["mary ann", "st. john"]),
        ("a\u2028b\na\x0cb\na\x85b\n".encode(), ["a\u2028b", "a\x0cb", "a\x85b"]),
    ],
    ids=[
        "unix",
        "no last end",
        "windows",
        "old mac",
        "byte-order mark",
        "spaces",
        "blank lines",
        "duplicates",
        "accents and scripts",
        "inner space and dot",
        "separators that splitlines would cut at",
    ],
)
def test_reads(file: Path, content: bytes, words: list[str]) -> None:
    file.write_bytes(content)
    assert read_words(file) == words


def test_composes_accents(file: Path) -> None:
    file.write_text("zoe\u0301\nzo\u00e9\n", encoding="utf-8")
    assert read_words(file) == ["zo\u00e9", "zo\u00e9"]


def test_one_very_long_line(file: Path) -> None:
    file.write_text("ab" * 50_000 + "\nava\n", encoding="utf-8")
    assert [len(word) for word in read_words(file)] == [100_000, 3]


def test_relative_path_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "relative.txt").write_text("ava\n", encoding="utf-8")
    (tmp_path / "home.txt").write_text("mia\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert read_words("relative.txt") == ["ava"]
    assert read_words("~/home.txt") == ["mia"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\n \r\n\t\n", "only blank lines"),
        (b"ava\r\nmia\rzo\xe9\nada\n", "line 3 is not UTF-8 (byte 0xe9"),
        (b"\xef\xbb\xbfava\nzo\xe9\n", "line 2 is not UTF-8 (byte 0xe9"),
        ("ava\n".encode("utf-16"), "line 1 is not UTF-8 (byte 0xff"),
        (b"ava\nmia\xc3", "line 2 is not UTF-8 (byte 0xc3"),
    ],
)
def test_bad_content(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"data.path={str(file)!r}: ") + ".*" + re.escape(message)):
        read_words(file)


def test_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^data\.path='gone\.txt': no such file") as raised:
        read_words("gone.txt")
    assert str(tmp_path) in str(raised.value)  # where a relative path was looked for
    with pytest.raises(ValueError, match=r"^data\.path='.*absent\.txt': no such file; expected a text file"):
        read_words(tmp_path / "absent.txt")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.path='.*': is a folder; expected a text file"):
        read_words(tmp_path)


def test_path_through_a_file(file: Path) -> None:
    file.write_text("ava\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^data\.path='.*': cannot be read \(Not a directory\)"):
        read_words(file / "deeper.txt")


def test_no_permission(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bytes:  # chmod would not stop a test that root runs
        raise PermissionError(13, "Permission denied")

    file.write_text("ava\n", encoding="utf-8")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"^data\.path='.*words\.txt': cannot be read \(Permission denied\)"):
        read_words(file)


def test_home_of_nobody() -> None:
    with pytest.raises(ValueError, match=r"^data\.path='~no-such-user/words\.txt': .*home"):
        read_words("~no-such-user/words.txt")


@pytest.mark.parametrize("n", [32_033, 32_178, 10, 11, 999])
def test_split_is_the_lectures(n: int) -> None:
    words = [f"w{i}" for i in range(n)]
    reference = list(words)
    random.seed(42)
    random.shuffle(reference)
    n1, n2 = int(0.8 * n), int(0.9 * n)
    assert split_words(words, [0.8, 0.1, 0.1], 42) == (reference[:n1], reference[n1:n2], reference[n2:])
    assert words == [f"w{i}" for i in range(n)]


def test_split_by_torch_is_that_of_makemore_py() -> None:
    words = [f"w{i}" for i in range(32_033)]
    torch.manual_seed(3407)
    order = torch.randperm(len(words)).tolist()
    train, val, test = split_words(words, [0.9376, 0.0312, 0.0312], 3407, "torch")
    assert test == [words[i] for i in order[-1000:]]
    assert train + val == [words[i] for i in order[:-1000]]
    assert len(val) == 999


def test_unknown_shuffle() -> None:
    with pytest.raises(ValueError, match=r"^data\.shuffle='numpy': expected python or torch\.$"):
        split_words(["word"] * 100, [0.8, 0.1, 0.1], 42, "numpy")


@pytest.mark.parametrize("shuffle", ["python", "torch"])
def test_split_seed_decides_the_order(shuffle: str) -> None:
    words = [f"w{i}" for i in range(50)]
    train = split_words(words, [0.8, 0.1, 0.1], 1, shuffle)[0]
    assert train == split_words(words, [0.8, 0.1, 0.1], 1, shuffle)[0]
    assert train != split_words(words, [0.8, 0.1, 0.1], 2, shuffle)[0]


def test_sum_of_shares_is_not_cut_short() -> None:
    assert int((0.7 + 0.2) * 100) == 89  # the float trap
    parts = split_words([f"w{i}" for i in range(100)], [0.7, 0.2, 0.1], 0)
    assert [len(part) for part in parts] == [70, 20, 10]


@pytest.mark.parametrize(
    "splits",
    [
        [0.8, 0.1],
        [0.8, 0.1, 0.05, 0.05],
        [0.8, 0.1, 0.2],
        [0.8, 0.1, 0.099],
        [1.1, -0.2, 0.1],
        [0.9, 0.1, 0.0],
        [0.8, "0.1", 0.1],
        [True, 0.1, 0.1],
        [float("nan"), 0.1, 0.1],
        [float("inf"), 0.1, 0.1],
        [],
        0.8,
        "0.8",
        None,
    ],
)
def test_bad_splits(splits: object) -> None:
    with pytest.raises(ValueError, match=r"^data\.splits=.*: expected three numbers above 0 that sum to 1"):
        split_words(["word"] * 100, splits, 42)  # type: ignore[arg-type]


def test_sum_of_wrong_shares_is_told() -> None:
    with pytest.raises(ValueError, match=r"data\.splits=\[0\.8, 0\.1, 0\.2\] \(sum 1\.1\)"):
        split_words(["word"] * 100, [0.8, 0.1, 0.2], 42)


def test_rounded_thirds_are_fine() -> None:
    parts = split_words(["word"] * 9, [0.3333333, 0.3333333, 0.3333334], 42)
    assert [len(part) for part in parts] == [2, 3, 4]  # int(2.9999997), int(5.9999994)


@pytest.mark.parametrize(("n", "empty"), [(1, "train"), (2, "val"), (5, "val")])
def test_too_few_words(n: int, empty: str) -> None:
    message = (
        rf"^data\.splits=\[0\.8, 0\.1, 0\.1\]: of {n} words none is left for the {empty} split; 10 words are enough"
    )
    with pytest.raises(ValueError, match=message):
        split_words(["word"] * n, [0.8, 0.1, 0.1], 42)


def test_the_number_said_to_be_enough_is() -> None:
    assert [len(part) for part in split_words(["word"] * 10, [0.8, 0.1, 0.1], 42)] == [8, 1, 1]
