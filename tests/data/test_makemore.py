import hashlib
import re
import urllib.request
from http.client import IncompleteRead
from pathlib import Path
from typing import NoReturn
from urllib.error import URLError

import pytest

from bnlm.data import makemore_path

CONTENT = b"emma\nolivia\nava"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
URL = "https://example.invalid/names.txt"


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the list is kept; in every test of this file the network is cut off."""

    def cut_off(url: str, *_: object, **__: object) -> NoReturn:
        raise URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", cut_off)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "bnlm" / "makemore_names.txt"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is published under a file:// address."""
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "published.txt"
    file.write_bytes(CONTENT)
    return file


def test_a_copy_is_taken_as_it_is(tmp_path: Path, cached: Path) -> None:
    copy = tmp_path / "copy.txt"
    copy.write_bytes(CONTENT)
    assert makemore_path(str(copy), URL, SHA256.upper()) == copy
    assert not cached.exists()


def test_another_list_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(CONTENT + b"\n")
    found = hashlib.sha256(CONTENT + b"\n").hexdigest()
    message = f"data.path={str(other)!r}: its sha256 is {found}, expected {SHA256}; for any other list write data=words"
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        makemore_path(str(other), URL, SHA256)


def test_a_copy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.path='.*gone\.txt': no such file"):
        makemore_path(str(tmp_path / "gone.txt"), URL, SHA256)
    with pytest.raises(ValueError, match=r"^data\.path='.*': is a folder"):
        makemore_path(str(tmp_path), URL, SHA256)


def test_download_is_kept(published: Path, cached: Path) -> None:
    url = published.as_uri()
    assert makemore_path(None, url, SHA256) == cached
    assert cached.read_bytes() == CONTENT
    assert list(cached.parent.iterdir()) == [cached]  # no temporary file left
    published.unlink()
    assert makemore_path(None, url, SHA256) == cached  # from the cache now


def test_damaged_cache_is_replaced(published: Path, cached: Path) -> None:
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT[:5])
    assert makemore_path(None, published.as_uri(), SHA256).read_bytes() == CONTENT


def test_default_cache_is_in_the_home_folder(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    expected = tmp_path / "home" / ".cache" / "bnlm" / "makemore_names.txt"
    assert makemore_path(None, published.as_uri(), SHA256) == expected


def test_wrong_download(published: Path, cached: Path) -> None:
    published.write_bytes(b"<html>please log in</html>")
    with pytest.raises(
        ValueError, match=rf"^data\.url='file://.*': the sha256 of the download is .*, expected {SHA256}"
    ):
        makemore_path(None, published.as_uri(), SHA256)
    assert not cached.exists()


def test_no_network(cached: Path) -> None:
    with pytest.raises(ValueError, match=rf"^data\.url='{re.escape(URL)}': cannot be downloaded") as raised:
        makemore_path(None, URL, SHA256)
    for part in ("(Name or service not known)", "data.path=FILE", "data=names"):
        assert part in str(raised.value)
    assert not cached.exists()


@pytest.mark.parametrize(
    "error", [TimeoutError("timed out"), IncompleteRead(b"em"), ConnectionResetError(104, "reset")]
)
def test_network_fails_half_way(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, *_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(ValueError, match=r"^data\.url=.*: cannot be downloaded \(.+\); give a copy"):
        makemore_path(None, URL, SHA256)


@pytest.mark.parametrize("url", ["names.txt", "", "gopher://example.invalid/names.txt"])
def test_not_a_web_address(published: Path, url: str) -> None:
    with pytest.raises(ValueError, match=rf"^data\.url='{re.escape(url)}': cannot be downloaded \(.+\)"):
        makemore_path(None, url, SHA256)


def test_cache_that_cannot_be_written(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"^data\.path=None: the list cannot be kept in .*; set XDG_CACHE_HOME"):
        makemore_path(None, published.as_uri(), SHA256)
