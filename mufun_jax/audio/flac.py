"""How long a FLAC is that was written to a pipe: its header says nothing, its last frame says where it stands.

Format: RFC 9639, sections 8.2 (stream information) and 9.1 (frame headers).
"""

import os
import re
from typing import BinaryIO

_TAIL = 1024**2  # bytes; several frames, unless they are of eight channels and very long
_FRAME = re.compile(rb"\xff[\xf8\xf9][\x10-\xef]", re.DOTALL)


def length(file: BinaryIO) -> int | None:
    """Samples to the end of the last frame, as its header gives them; None if no two frames follow each other."""
    file.seek(0)
    start = file.read(_TAIL)
    info = start.find(b"fLaC")
    block = int.from_bytes(start[info + 10 : info + 12], "big")
    file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
    tail = file.read()
    ends = {0}
    last = None
    for found in _FRAME.finditer(tail):
        frame = _frame(tail[found.start() : found.start() + 16].ljust(16, b"\0"), block)
        if frame is None:
            continue
        begin, end = frame
        if begin in ends:
            last = end
        ends.add(end)
    return last


def with_length(header: bytes, samples: int) -> bytes:
    """The first bytes of a FLAC, with the number of its samples filled in."""
    at = header.find(b"fLaC") + 21
    number = (header[at] & 0xF0) << 32 | samples
    return header[:at] + number.to_bytes(5, "big") + header[at + 5 :]


def _frame(head: bytes, fixed_block: int) -> tuple[int, int] | None:
    """The samples (from, to) of the frame that begins with these 16 bytes; None if it is none."""
    size_code, rate_code = head[2] >> 4, head[2] & 15
    coded = _coded_number(head[4:11])
    if coded is None or rate_code == 15:
        return None
    number, at = coded[0], 4 + coded[1]
    if size_code in (6, 7):
        wide = size_code - 5
        block = int.from_bytes(head[at : at + wide], "big") + 1
        at += wide
    else:
        block = 192 if size_code == 1 else (576 << size_code - 2 if size_code < 6 else 256 << size_code - 8)
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if _checksum(head[:at]) != head[at]:
        return None
    begin = number if head[1] & 1 else number * fixed_block
    return begin, begin + block


def _coded_number(code: bytes) -> tuple[int, int] | None:
    """A number of up to 36 bits coded as in UTF-8, and the bytes it takes."""
    first = code[0]
    if first < 0x80:
        return first, 1
    size = 8 - (~first & 0xFF).bit_length()  # ones before the first zero
    if not 2 <= size <= 7 or any(byte & 0xC0 != 0x80 for byte in code[1:size]):
        return None
    number = first & (0x7F >> size)
    for byte in code[1:size]:
        number = number << 6 | byte & 0x3F
    return number, size


def _checksum(head: bytes) -> int:
    """CRC-8 of polynomial 0x07, from 0."""
    crc = 0
    for byte in head:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc
