"""Running text: read a large file into small numbers, without ever holding it as one of Python's strings."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from bnlm.data.vocabulary import Vocabulary
from bnlm.data.words import composed, read_bytes

CHUNK = 1 << 22  # bytes that are decoded at once, or up to twice as many
CODE_POINTS = 0x110000


def read_text(path: str | Path) -> tuple[Tensor, Vocabulary]:
    r"""Return the ids `(N,)` of all characters of a UTF-8 file, in order, and the vocabulary of those that occur.

    A byte-order mark is taken off, `\r\n` becomes `\n`, and letters are composed (Unicode NFC), as in `read_words`. The
    ids have the smallest type that holds them: uint8 for up to 255 different characters, else int16 or int32.

    Raises:
        ValueError: If the file cannot be read, is empty, or is not UTF-8.
    """
    content = read_bytes(path)
    key = f"data.path={str(path)!r}"
    if not content.removeprefix(b"\xef\xbb\xbf"):
        raise ValueError(f"{key}: the file is empty; expected a text.")
    seen = torch.zeros(CODE_POINTS, dtype=torch.bool)
    total = 0
    for codes in _code_points(content, key):
        seen[codes] = True
        total += len(codes)
    occurring = seen.nonzero().squeeze(1)
    vocabulary = Vocabulary("".join(map(chr, occurring.tolist())))
    kind = next(k for k in (torch.uint8, torch.int16, torch.int32) if len(vocabulary) - 1 <= torch.iinfo(k).max)
    id_of = torch.zeros(CODE_POINTS, dtype=kind)
    id_of[occurring] = torch.arange(1, len(vocabulary)).to(kind)
    ids = torch.empty(total, dtype=kind)
    done = 0
    for codes in _code_points(content, key):
        ids[done : done + len(codes)] = id_of[codes]
        done += len(codes)
    return ids, vocabulary


def _code_points(content: bytes, key: str) -> Iterator[Tensor]:
    """Yield the code points of a file, int64, chunk by chunk."""
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    while start < len(content):
        stop = _end_of_chunk(content, start)
        try:
            text = content[start:stop].decode("utf-8")
        except UnicodeDecodeError as error:
            at = start + error.start
            line = content.count(b"\n", 0, at) + 1
            raise ValueError(
                f"{key}: line {line} is not UTF-8 (byte 0x{content[at]:02x}: {error.reason}); save the file as UTF-8."
            ) from error
        text = composed(text.replace("\r\n", "\n").replace("\r", "\n"))
        encoded = bytearray(text.encode("utf-32-le"))  # writable: torch warns of memory that is not
        yield torch.frombuffer(encoded, dtype=torch.int32).long()
        start = stop


def _end_of_chunk(content: bytes, start: int) -> int:
    """Return where a chunk from `start` ends: after a line or before a space, which no accent is composed with.

    In a text without either it ends before some character.
    """
    least, most = start + CHUNK, start + 2 * CHUNK
    if least >= len(content):
        return len(content)
    line_end = content.find(b"\n", least, most)
    if line_end >= 0:
        return line_end + 1
    space = content.find(b" ", least, most)
    if space >= 0:
        return space
    while least < len(content) and content[least] & 0xC0 == 0x80:  # inside a character
        least += 1
    return least
