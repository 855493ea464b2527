"""Lets TensorBoard's writer compute the checksums of an event file in C.

TensorBoard alone does so in Python, byte by byte: 1 ms for the scalars of one observed step, 10 ms for a picture, in a
thread that holds up the training meanwhile.
"""

import struct
from functools import partial
from typing import Any

import google_crc32c


def speed_up_checksums(writer: Any) -> None:
    """Make `writer` (torch's `FileWriter`) write the same bytes faster; one that is built otherwise stays as it is."""
    try:
        records = writer.event_writer._async_writer._writer
        file = records._writer
    except AttributeError:
        return
    if "write" not in vars(records):
        records.write = partial(write_record, file)


def write_record(file: Any, data: bytes) -> None:
    """Write one record: length, its masked checksum, the data, their masked checksum (TFRecord's format)."""
    length = struct.pack("<Q", len(data))
    file.write(length + _masked_checksum(length) + data + _masked_checksum(data))


def _masked_checksum(data: bytes) -> bytes:
    checksum = google_crc32c.value(data)
    return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
