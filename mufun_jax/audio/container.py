"""What an audio file's own structure says that its decoder keeps to itself: does it end early, and where is it damaged?

Decoders pass over both in silence (a WAV cut in half simply becomes a shorter WAV; an Ogg page with flipped bits is
left out). Nothing is decoded here: the functions walk over chunk, page and frame headers.
"""

import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

# A recorder that writes to a pipe cannot know the length, and writes 0 or a huge number: no promise at all.
STREAMED_SIZE = 0x7F000000

# MPEG audio frame headers: kbit/s by index for (MPEG-1, MPEG-2/2.5) of layer III; sample rates by version bits.
MP3_KBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}

# Seconds around damage at which an MP3 decodes to noise: frames are built on bits of the frames before.
MP3_UNSURE = (0.03, 0.15)

# How far behind damage more audio is looked for.
_SEARCH = 16 * 1024**2  # bytes; tags with pictures are shorter
_OGG_TRIALS = 1_000  # pages whose checksums are tried

# What a layer III header begins with.
_MP3_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][^\x00-\x0f\xf0-\xff]", re.DOTALL)

_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class Damage:
    """Bytes inside a file that its decoder passes over."""

    seconds: float  # where the first of them are
    lost: float  # seconds of audio that were there, about
    whole: tuple[tuple[int, int], ...] = ()  # of an MP3: the bytes without the damage, from and to
    joints: tuple[float, ...] = ()  # of an MP3: where damage was, in seconds of what is whole


def present_share(file: BinaryIO) -> float:
    """Which part of the sample data that a WAV or AIFF header promises is there: 1.0 when whole or not known."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    form = file.read(12)
    if form[:4] == b"RIFF" and form[8:12] == b"WAVE":
        order, wanted = "<", b"data"
    elif form[:4] == b"FORM" and form[8:12] in (b"AIFF", b"AIFC"):
        order, wanted = ">", b"SSND"
    else:
        return 1.0
    while len(head := file.read(8)) == 8:
        chunk, promised = head[:4], struct.unpack(order + "I", head[4:])[0]
        if chunk == wanted:
            present = size - file.tell()
            return 1.0 if promised >= STREAMED_SIZE or present >= promised else present / promised
        file.seek(promised + promised % 2, os.SEEK_CUR)
    return 1.0


def ogg_damage(file: BinaryIO, rate: int, stop: float, *, to_end: bool = False) -> Damage | None:
    """Damaged pages that start before second `stop`, or None.

    With `to_end`, `stop` is where the decoder says that the file ends, which damage may have told it: pages that
    follow are walked over too, bytes that are none are not looked at.

    A page is damaged if it does not begin with "OggS" or its checksum is wrong. One that the end of the file
    cuts off is not: see `ogg_is_finished`. Format: RFC 3533.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    if b"OpusHead" in file.read(64):
        rate = 48_000  # whatever the rate it is decoded at (RFC 7845)
    offset, seconds, lost, page_seconds = 0, 0.0, 0.0, 0.0
    first: float | None = None
    while offset < size and (seconds < stop or to_end):
        page, found = _ogg_page(file, offset), offset
        if page is None:
            goes_on = _next_ogg_page(file, offset + 1)
            if goes_on is None and (seconds >= stop or _ogg_is_cut_off(file, offset, size)):
                break
            first = seconds if first is None else first
            if goes_on is None:
                break
            found, page = goes_on
        length, granule = page
        if granule >= 0:  # -1: no packet ends on this page
            reached = granule / rate
            if found > offset:  # this page is whole, and as long as others; what lies before it is lost
                lost += max(0.0, reached - seconds - page_seconds)
            else:
                page_seconds = reached - seconds
            seconds = reached
        offset = found + length
    return None if first is None else Damage(first, max(lost, seconds - stop) if to_end else lost)


def ogg_is_finished(file: BinaryIO) -> bool:
    """Whether the last page is whole and carries the end-of-stream flag."""
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - 2 * 65_307))  # 65,307 bytes: the largest page
    tail = file.read()
    last = tail.rfind(b"OggS")
    if last < 0 or len(tail) < last + 27:
        return False
    lacing = tail[last + 27 : last + 27 + tail[last + 26]]
    return bool(tail[last + 5] & 4) and last + 27 + tail[last + 26] + sum(lacing) <= len(tail)


def _ogg_page(file: BinaryIO, offset: int) -> tuple[int, int] | None:
    """Bytes and granule position of the page that begins at a byte of the file; None if none does, whole."""
    file.seek(offset)
    head = file.read(27)
    if len(head) < 27 or head[:4] != b"OggS":
        return None
    lacing = file.read(head[26])
    body = file.read(sum(lacing))
    page = head[:22] + bytes(4) + head[26:] + lacing + body
    whole = len(lacing) == head[26] and len(body) == sum(lacing)
    if not whole or _ogg_checksum(page) != struct.unpack("<I", head[22:26])[0]:
        return None
    return len(page), struct.unpack("<q", head[6:14])[0]


def _ogg_is_cut_off(file: BinaryIO, offset: int, size: int) -> bool:
    """Whether the page at a byte of the file is longer than the file."""
    file.seek(offset)
    head = file.read(27)
    if len(head) < 27:
        return True
    return head[:4] == b"OggS" and offset + 27 + head[26] + sum(file.read(head[26])) > size


def _next_ogg_page(file: BinaryIO, offset: int) -> tuple[int, tuple[int, int]] | None:
    """Where the next whole page begins, with its bytes and granule position."""
    file.seek(offset)
    stream = file.read(_SEARCH)
    start = 0
    for _ in range(_OGG_TRIALS):
        start = stream.find(b"OggS", start)
        if start < 0:
            break
        if (page := _ogg_page(file, offset + start)) is not None:
            return offset + start, page
        start += 1
    return None


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of polynomial 0x04C11DB7, not reflected, from 0: zlib's, with bits reversed on the way in and out."""
    crc = zlib.crc32(page.translate(_REVERSED_BITS), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def mp3_damage(file: BinaryIO, stop: float) -> tuple[Damage | None, float]:
    """Walk over MP3 frames before second `stop`: (where they break off and go on later, or None; seconds in frames).

    The frame before a break is not whole: its header was there, its end was not.
    """
    file.seek(0)
    stream = file.read()
    offset = 0
    if stream[:3] == b"ID3" and len(stream) >= 10:  # the tag's size has seven bits a byte
        offset = 10 + sum((byte & 127) << shift for byte, shift in zip(stream[6:10], (21, 14, 7, 0), strict=True))
    seconds, lost, last_duration, seconds_a_byte = 0.0, 0.0, 0.0, 0.0
    first: float | None = None
    whole, joints, begin, last_frame = [], [], 0, 0
    while offset + 4 <= len(stream) and seconds < stop:
        length, duration = _mp3_frame(stream[offset : offset + 4])
        if not length:
            goes_on = _next_mp3_frame(stream, offset + 1)
            if goes_on is None:
                break
            if seconds:  # else padding before the first frame
                first = seconds if first is None else first
                lost += (goes_on - last_frame) * seconds_a_byte
                whole.append((begin, last_frame))
                seconds -= last_duration
                joints.append(seconds)
                begin, last_duration = goes_on, 0.0
            offset = goes_on
            continue
        last_frame, last_duration, seconds_a_byte = offset, duration, duration / length
        offset += length
        seconds += duration
    whole.append((begin, len(stream)))
    return None if first is None else Damage(first, lost, tuple(whole), tuple(joints)), seconds


def _mp3_frame(head: bytes) -> tuple[int, float]:
    """Bytes and seconds of the layer III frame that four bytes announce; (0, 0.0) if they announce none."""
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    kbits, rate = head[2] >> 4, head[2] >> 2 & 3
    if head[0] != 0xFF or head[1] & 0xE0 != 0xE0 or version == 1 or layer != 1 or kbits in (0, 15) or rate == 3:
        return 0, 0.0
    samples = 1152 if version == 3 else 576
    hertz = MP3_RATES[version][rate]
    bits_per_second = 1000 * MP3_KBITS[3 if version == 3 else 2][kbits]
    return samples // 8 * bits_per_second // hertz + (head[2] >> 1 & 1), samples / hertz


def _next_mp3_frame(stream: bytes, offset: int) -> int | None:
    """Where the next three frames begin; two bytes alone look like a frame too often."""
    for sync in _MP3_SYNC.finditer(stream, offset, offset + _SEARCH):
        end = sync.start()
        for _ in range(3):
            length = _mp3_frame(stream[end : end + 4])[0] if end + 4 <= len(stream) else 0
            end += length
            if not length:
                break
        else:
            return sync.start()
    return None
