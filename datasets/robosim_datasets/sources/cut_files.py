"""Whether a video file lacks its end, by what its container says of its own length.

Decoders are lenient: many read the part of a cut file that is there and report its end as the end.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

SEGMENT = b"\x18\x53\x80\x67"
"""EBML's identifier of the element that holds all of a Matroska or WebM file but its header."""


def missing_end(path: Path) -> str:
    """What shows that a file is cut off, in words; "" where nothing does, or the container is another."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        if start[4:8] == b"ftyp":
            return _boxes(file, size)
        if start[:4] == b"RIFF":
            return _too_short(8 + struct.unpack("<I", start[4:8])[0], size)
        if start[:4] == b"\x1a\x45\xdf\xa3":
            return _segment(file, size)
        if start[:4] == b"GIF8":
            file.seek(max(0, size - 1))
            return "" if file.read(1) == b";" else "its last byte isn't a GIF's trailer"
    return ""


def _boxes(file: BinaryIO, size: int) -> str:
    """MP4 and MOV: boxes one after another, each with its size."""
    position, names = 0, set()
    while position + 8 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        names.add(name)
        if length == 1:
            length = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))[0]
        if length == 0:  # up to the end of the file
            length = size - position
        if length < 8:
            return f"the box at byte {position} has no size"
        position += length
    return _too_short(position, size) or ("" if b"moov" in names else "its index (moov) is missing")


def _segment(file: BinaryIO, size: int) -> str:
    """Matroska and WebM: the header, then the segment with its size.

    Browsers and others that write as they record leave the size open: what is there is decoded.
    """
    file.seek(0)
    start = file.read(256)
    at = start.find(SEGMENT)
    if at < 0 or at + 5 > len(start):
        return "its segment is missing"
    first = start[at + 4]
    width = 9 - first.bit_length()
    value = int.from_bytes(start[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
    if value == (1 << 7 * width) - 1:
        return ""
    return _too_short(at + 4 + width + value, size)


def _too_short(expected: int, size: int) -> str:
    return f"it has {size} of {expected} bytes" if size < expected else ""
