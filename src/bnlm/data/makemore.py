"""The lecture's own list of names: from a given file, the cache, or the network; always checked by its sha256."""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from bnlm.cache_folder import cache_folder
from bnlm.data.words import read_bytes

TIMEOUT = 20  # seconds


def makemore_path(path: str | None, url: str, sha256: str) -> Path:
    """Return the path of a file with the given checksum.

    Args:
        path: A copy of the file; None takes the cached copy, which is downloaded first where it is missing or damaged.
        url: Where the file is published.
        sha256: Of the file, 64 hexadecimal digits.
    Raises:
        ValueError: If the file cannot be read or had, or is another than the checksum says.
    """
    if path is not None:
        found = _sha256(read_bytes(path))
        if found != sha256.lower():
            raise ValueError(
                f"data.path={str(path)!r}: its sha256 is {found}, expected {sha256.lower()}; "
                f"for any other list write data=words data.path={path}."
            )
        return Path(path).expanduser()
    cached = cache_folder() / "makemore_names.txt"
    if not _is_intact(cached, sha256):
        _store(_download(url, sha256), cached)
    return cached


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _is_intact(cached: Path, sha256: str) -> bool:
    try:
        return _sha256(cached.read_bytes()) == sha256.lower()
    except OSError:  # missing or unreadable: have it anew
        return False


def _download(url: str, sha256: str) -> bytes:
    instead = "give a copy as data.path=FILE, or take the shipped list with data=names."
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            content: bytes = response.read()
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection open
        raise ValueError(f"data.url={url!r}: cannot be downloaded ({error}); {instead}") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: not a URL
        reason = getattr(error, "reason", None) or error
        raise ValueError(f"data.url={url!r}: cannot be downloaded ({reason}); {instead}") from error
    if _sha256(content) != sha256.lower():
        raise ValueError(
            f"data.url={url!r}: the sha256 of the download is {_sha256(content)}, expected {sha256.lower()}; {instead}"
        )
    return content


def _store(content: bytes, cached: Path) -> None:
    """Write in one move, so that a run started at the same time, or a crash, never meets half a file."""
    temporary = None
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cached.parent, delete=False) as file:
            temporary = file.name
            file.write(content)
        os.replace(temporary, cached)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ValueError(
            f"data.path=None: the list cannot be kept in {cached} ({error.strerror or error}); "
            "set XDG_CACHE_HOME to a writable folder, or give a copy as data.path=FILE."
        ) from error
