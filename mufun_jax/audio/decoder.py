"""Opens an audio file that may be anything, and decodes it in blocks, past damage if that is wanted.

libsndfile decodes: WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF and more, told by content and not by suffix.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from mufun_jax.errors import AudioError

FORMATS = "WAV, FLAC, MP3, OGG Vorbis, Opus and AIFF"
FILE_LIMIT = 2 * 1024**3  # bytes
CHANNEL_LIMIT = 64
RATES = (1_000, 1_000_000)  # Hz; beyond, the header is wrong
BLOCK = 65_536  # frames decoded at a time
UNKNOWN_LENGTH = 2**60  # frames; libsndfile reports more for a FLAC that was written to a pipe
BLOCK_TRIALS = 200  # smaller blocks; at one place of damage it takes some twenty
DAMAGE_LIMIT = 50  # stretches of damage that are passed over; each takes many trials


# --- opening -------------------------------------------------------------------------------------------------------


def opened(audio: str | Path | bytes, name: str) -> BinaryIO:
    """The file, or one with these bytes, if it is one that a decoder may be let loose on."""
    if isinstance(audio, bytes):
        return _file_of(audio, name)
    try:
        status = os.stat(audio)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{name}: is a folder; name an audio file")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{name}: is no regular file; copy the audio into one")
        if status.st_size == 0:
            raise AudioError(f"{name}: empty audio file (0 bytes); fetch it again")
        if status.st_size > FILE_LIMIT:
            raise AudioError(f"{name}: {status.st_size} bytes, more than the limit of {FILE_LIMIT}; cut it first")
        return open(audio, "rb", buffering=0)  # the decoder reads the same descriptor
    except FileNotFoundError:
        hint = "; download it first" if "://" in name else "; check the path"
        raise AudioError(f"{name}: no such file{hint}") from None
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror}); check its path and permissions") from None
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name}: is no file name ({error}); check the path") from None


def _file_of(data: bytes, name: str) -> BinaryIO:
    """The decoder reads descriptors: bytes go into a file without a name, which is gone when it is closed."""
    if not data:
        raise AudioError(f"{name}: empty audio file (0 bytes); give the whole of one")
    if len(data) > FILE_LIMIT:
        raise AudioError(f"{name}: {len(data)} bytes, more than the limit of {FILE_LIMIT}; cut it first")
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
    with memoryview(data) as left:
        while left:
            left = left[file.write(left) :]
    return file


def checked_decoder(file: BinaryIO, name: str) -> soundfile.SoundFile:
    """A decoder at the first frame. It is given the open file, not its name: suffixes decide nothing."""
    file.seek(0)
    head = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:7].upper() == b"#EXTM3U" or head[:10].lower() == b"[playlist]":
        raise AudioError(f"{name}: is a playlist, not audio, and the files it names are not followed; name one of them")
    try:
        sound = fresh_decoder(file)
    except soundfile.LibsndfileError as error:
        said = one_line(error.error_string) or "nothing"
        raise AudioError(
            f"{name}: cannot be decoded (libsndfile says: {said}); {FORMATS} are read, convert other files to FLAC"
        ) from None
    rate, channels = sound.samplerate, sound.channels
    if sound.frames <= 0:
        raise AudioError(f"{name}: empty audio file (a header and no samples); fetch it again")
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"{name}: sample rate {rate} Hz is outside {RATES[0]} to {RATES[1]}; its header is wrong")
    if not 1 <= channels <= CHANNEL_LIMIT:
        raise AudioError(f"{name}: {channels} channels, more than the limit of {CHANNEL_LIMIT}; mix it down first")
    return sound


def fresh_decoder(file: BinaryIO) -> soundfile.SoundFile:
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return soundfile.SoundFile(file.fileno(), closefd=False)


# --- decoding ------------------------------------------------------------------------------------------------------


def _decoder_at(file: BinaryIO, position: int) -> soundfile.SoundFile | None:
    """A decoder whose next frame is the one wanted; None if it cannot get there."""
    try:
        sound = fresh_decoder(file)
        sound.seek(position)
    except soundfile.LibsndfileError:
        return None
    return sound if sound.tell() == position else None  # an MP3 whose header lies gets anywhere


def _blocks(file: BinaryIO, first: int, last: int) -> Iterator[np.ndarray]:
    """Frames `first` to `last` in blocks of [frames, channels]; fewer if the decoder gives up on the way.

    When it does, it throws away the block it was in; smaller blocks find the last frame before. If it gets past
    that after all, they grow again.
    """
    position, size, trials = first, max(1, min(BLOCK, last - first)), 0
    sound = _decoder_at(file, first)
    while sound is not None and position < last:
        try:
            block = sound.read(min(size, last - position), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            trials += 1
            if size == 1 or trials > BLOCK_TRIALS:
                return
            size = max(1, size // 16)
            sound = _decoder_at(file, position)
            continue
        if not len(block):
            return
        position += len(block)
        size = min(BLOCK, 2 * size)
        yield block


def _blocks_from(file: BinaryIO, first: int, last: int) -> Iterator[np.ndarray]:
    """`_blocks`, also where the decoder cannot seek (in a FLAC cut short, say): it then drops what is before."""
    position = first
    for block in _blocks(file, first, last):
        position += len(block)
        yield block
    if position > first or first == 0:
        return
    position = 0
    for block in _blocks(file, 0, last):
        wanted = block[max(0, first - position) :]
        position += len(block)
        if len(wanted):
            yield wanted


def placed_blocks(
    file: BinaryIO, first: int, last: int, rate: int, *, past_damage: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Frames `first` to `last` in blocks of [frames, channels], each with the frame at which it begins.

    Ends where the decoder gives up. With `past_damage` it goes on at the next frame that can be decoded, and the
    numbers show the gap.
    """
    position = first
    for _ in range(DAMAGE_LIMIT + 1):
        for block in _blocks_from(file, position, last):
            yield position, block
            position += len(block)
        resumed = _resumed_at(file, position, last, rate) if past_damage and position < last else None
        if resumed is None:
            return
        position = resumed


def decodes_at(file: BinaryIO, position: int) -> bool:
    return next(_blocks(file, position, position + 1), None) is not None


def _resumed_at(file: BinaryIO, position: int, last: int, rate: int) -> int | None:
    """The first frame after damage that can be decoded, to 20 ms, or None.

    The steps grow with the distance; only what follows damage four times as long may be stepped over.
    """
    finest = max(1, rate // 50)
    damaged, reach = 0, finest
    while not decodes_at(file, position + reach):
        damaged, reach = reach, reach + max(finest, reach // 4)
        if reach >= last - position:
            return None
    while reach - damaged > finest:
        middle = (damaged + reach) // 2
        if decodes_at(file, position + middle):
            reach = middle
        else:
            damaged = middle
    return position + reach


def one_line(text: str) -> str:
    """Text that prints on one line: control characters and broken encodings are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
