"""From a file of any format, rate and channel count to mono 16 kHz samples, or to one line that says why not.

libsndfile decodes (WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF and more, told by content and not by suffix), soxr
resamples. Files are read in blocks and only as far as they are needed. Channels are mixed by their mean.
"""

import math
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from mufun_jax.audio import container
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError

FORMATS = "WAV, FLAC, MP3, OGG Vorbis, Opus and AIFF"
FILE_LIMIT = 2 * 1024**3  # bytes
DECODED_LIMIT = 256 * 1024**2  # bytes of 16-bit mono, at the file's rate and at ours: a header's seconds may lie
CHANNEL_LIMIT = 64
RATES = (1_000, 1_000_000)  # Hz; beyond, the header is wrong
SHORTEST = 0.1  # seconds
BLOCK = 65_536  # frames decoded at a time
UNKNOWN_LENGTH = 2**60  # frames; libsndfile reports more for a FLAC that was written to a pipe
RESAMPLER_REACH = 0.1  # seconds; the resampler's filter is far shorter

OVERLOAD = 4.0  # a peak this high is a wrong scale; decoded MP3s often reach 1.2, and mixes in float a little more
NO_AUDIO = 1e10  # 32-bit integers stored as floats reach 2.1e9; beyond is no audio, and overflows
OPPOSITE_PHASE = 1e-4  # power of the mix over power of the channels: 40 dB
AUDIBLE = 1e-10  # power of the channels: -100 dB of full scale


@dataclass(frozen=True)
class Waveform:
    """What was asked for of one file, and how much of the file that is."""

    samples: Float32[np.ndarray, " samples"]  # mono, 16 kHz
    file_seconds: float  # length of the whole file
    start: float  # seconds of the file at which `samples` begins
    end: float  # and ends
    warnings: tuple[str, ...]  # one line each


def load_waveform(
    path: str | Path,
    *,
    segment: Sequence[int | float] | None = None,
    max_seconds: int | float = 3600.0,
    longest: int | float | None = None,
) -> Waveform:
    """Decode a file, or the seconds (start, end) of it, to mono 16 kHz float32.

    A segment is cut from the resampled file, sample for sample: its edges do not depend on where it was cut.
    `longest` stops decoding after so many seconds and says nothing: compare `end` with `file_seconds`. More than
    `max_seconds` to decode is an error. Everything wrong with the file or the arguments is an `AudioError`.
    """
    name = _one_line(str(path))
    start, end = _checked_segment(segment, name)
    with _opened(path, name) as file:
        sound = _decoder(file, name)
        rate, frames = sound.samplerate, sound.frames
        if frames >= UNKNOWN_LENGTH:
            frames = _counted(file, name, rate)
        warnings: list[str] = []
        start, stop = _planned(name, frames / rate, start, end, max_seconds, longest, warnings)
        _check_container(file, name, sound.format, rate, frames, stop, warnings)
        mix = _mixed_down(file, name, rate, start, stop, frames, warnings)

    if mix.ended is not None:  # the header promised more; what is there is used
        frames = mix.ended
        if start * rate >= frames:
            raise AudioError(
                f"{name}: cannot be decoded from {start:g} s on, though its header promises "
                f"{sound.frames / rate:.2f} s; give an earlier segment, or fetch it again"
            )
    end = start + len(mix.samples) / SAMPLE_RATE
    if end - start < SHORTEST:
        raise AudioError(f"{name}: only {end - start:.3g} s of audio at {start:g} s; at least {SHORTEST} s are needed")
    return Waveform(mix.finished(name, warnings), frames / rate, start, min(end, frames / rate), tuple(warnings))


def _checked_segment(segment: Sequence[int | float] | None, name: str) -> tuple[float, float]:
    if segment is None:
        return 0.0, math.inf
    if len(segment) != 2:
        raise AudioError(f"{name}: a segment is two numbers of seconds, start and end, not {len(segment)}")
    start, end = float(segment[0]), float(segment[1])
    if not 0 <= start < math.inf:
        raise AudioError(f"{name}: segment {start:g} to {end:g} s starts outside the file; seconds count from 0")
    if not start < end:
        raise AudioError(f"{name}: segment {start:g} to {end:g} s ends before it has begun; give start, then end")
    return start, end


def _planned(
    name: str,
    file_seconds: float,
    start: float,
    end: float,
    max_seconds: int | float,
    longest: int | float | None,
    warnings: list[str],
) -> tuple[float, float]:
    """The seconds to decode, after all limits."""
    if start >= file_seconds:
        raise AudioError(f"{name}: segment starts at {start:g} s, but the file ends at {file_seconds:.3f} s")
    if math.isfinite(end) and end > file_seconds + 0.5 / SAMPLE_RATE:
        warnings.append(
            f"{name}: segment ends at {end:g} s, but the file at {file_seconds:.3f} s; what is there is used"
        )
    stop = min(end, file_seconds)
    if longest is not None:
        if not longest > 0:
            raise AudioError(f"{name}: longest must be more than 0 s, not {longest:g}")
        stop = min(stop, start + longest)
    if stop - start > max_seconds:
        raise AudioError(
            f"{name}: too long, {stop - start:.1f} s where at most {max_seconds:g} s are decoded; give a segment"
        )
    return start, stop


# --- opening -------------------------------------------------------------------------------------------------------


def _opened(path: str | Path, name: str) -> BinaryIO:
    """The file, if it is one that a decoder may be let loose on."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{name}: is a folder; name an audio file")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{name}: is no regular file; copy the audio into one")
        if status.st_size == 0:
            raise AudioError(f"{name}: empty audio file (0 bytes); fetch it again")
        if status.st_size > FILE_LIMIT:
            raise AudioError(f"{name}: {status.st_size} bytes, more than the limit of {FILE_LIMIT}; cut it first")
        return open(path, "rb", buffering=0)  # the decoder reads the same descriptor
    except FileNotFoundError:
        hint = "; download it first" if "://" in name else "; check the path"
        raise AudioError(f"{name}: no such file{hint}") from None
    except OSError as error:
        raise AudioError(f"{name}: cannot be opened ({error.strerror}); check its path and permissions") from None
    except ValueError as error:
        if isinstance(error, AudioError):
            raise
        raise AudioError(f"{name}: is no file name ({error}); check the path") from None


def _decoder(file: BinaryIO, name: str) -> soundfile.SoundFile:
    """A decoder at the first frame. It is given the open file, not its name: suffixes decide nothing."""
    file.seek(0)
    head = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:7].upper() == b"#EXTM3U" or head[:10].lower() == b"[playlist]":
        raise AudioError(f"{name}: is a playlist, not audio, and the files it names are not followed; name one of them")
    try:
        sound = _fresh_decoder(file)
    except soundfile.LibsndfileError as error:
        said = _one_line(error.error_string) or "nothing"
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


def _fresh_decoder(file: BinaryIO) -> soundfile.SoundFile:
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    return soundfile.SoundFile(file.fileno(), closefd=False)


# --- decoding ------------------------------------------------------------------------------------------------------


def _blocks(file: BinaryIO, first: int, last: int) -> Iterator[np.ndarray]:
    """Frames `first` to `last` in blocks of [frames, channels]; fewer if the decoder gives up on the way.

    When it does, it throws away the block it was in; smaller and smaller blocks find the last frame before.
    """
    position, size = first, BLOCK
    sound = _fresh_decoder(file)
    try:
        sound.seek(first)
    except soundfile.LibsndfileError:
        return
    while position < last:
        try:
            block = sound.read(min(size, last - position), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            if size == 1:
                return
            size //= 16
            try:
                sound = _fresh_decoder(file)
                sound.seek(position)
            except soundfile.LibsndfileError:
                return
            continue
        if not len(block):
            return
        position += len(block)
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


def _counted(file: BinaryIO, name: str, rate: int) -> int:
    """The number of frames of a file whose header does not tell: decode and forget."""
    frames = 0
    for block in _blocks(file, 0, UNKNOWN_LENGTH):
        frames += len(block)
        _check_decoded_size(name, frames, rate)
    if not frames:
        raise AudioError(f"{name}: no audio could be decoded; fetch it again")
    return frames


def _check_decoded_size(name: str, frames: int, rate: int) -> None:
    decoded = 2 * max(frames, math.ceil(frames / rate * SAMPLE_RATE))
    if decoded > DECODED_LIMIT:
        raise AudioError(
            f"{name}: decodes to at least {decoded} bytes ({frames} frames at {rate} Hz), more than the limit "
            f"of {DECODED_LIMIT}; give a segment"
        )


@dataclass
class _Mix:
    """The mean of the channels at 16 kHz, and what was noticed on the way."""

    samples: Float32[np.ndarray, " samples"] = field(default_factory=lambda: np.zeros(0, np.float32))
    channel_power: float = 0.0  # summed over frames, mean over channels
    mix_power: float = 0.0
    ended: int | None = None  # the frame at which the decoder gave up before the file's stated end

    def finished(self, name: str, warnings: list[str]) -> Float32[np.ndarray, " samples"]:
        """The samples at a sane scale, with warnings about what was heard."""
        frames = max(1, len(self.samples))
        if self.channel_power / frames > AUDIBLE and self.mix_power < OPPOSITE_PHASE * self.channel_power:
            warnings.append(f"{name}: the channels are in opposite phase and cancel: the mix is 40 dB below them")
        peak = float(np.abs(self.samples).max())
        if peak > OVERLOAD:
            warnings.append(f"{name}: samples reach {peak:.3g}, where 1.0 is full scale; scaled down to 1.0")
            return self.samples / np.float32(peak)
        return self.samples


def _mixed_down(
    file: BinaryIO, name: str, rate: int, start: float, stop: float, frames: int, warnings: list[str]
) -> _Mix:
    """Decode seconds `start` to `stop`, mix and resample them."""
    # Decode a little more on both sides, from a frame that falls on a sample of ours, so that the resampled
    # segment is a slice of the resampled file. rate / gcd frames are 16,000 / gcd samples exactly.
    divisor = math.gcd(rate, SAMPLE_RATE)
    steps = max(0, math.floor((start - RESAMPLER_REACH) * divisor))
    first = steps * (rate // divisor)
    last = min(frames, math.ceil((stop + RESAMPLER_REACH) * rate))
    _check_decoded_size(name, last - first, rate)

    mix = _Mix()
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    parts: list[np.ndarray] = []
    position = first
    for block in _blocks_from(file, first, last):
        _check_samples(block, name, position, rate)
        mono = block.mean(axis=1)
        mix.channel_power += float(np.square(block, dtype=np.float64).sum()) / block.shape[1]
        mix.mix_power += float(np.square(mono, dtype=np.float64).sum())
        position += len(block)
        parts.append(mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono))
    if position < last:
        _check_early_end(file, name, position, frames, rate, warnings)
        mix.ended = position
    if rate != SAMPLE_RATE and position > first:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))

    origin = steps * (SAMPLE_RATE // divisor)
    samples = np.concatenate(parts) if parts else mix.samples
    mix.samples = samples[round(start * SAMPLE_RATE) - origin : round(stop * SAMPLE_RATE) - origin]
    return mix


def _check_samples(block: np.ndarray, name: str, position: int, rate: int) -> None:
    if max(float(block.max()), -float(block.min())) < NO_AUDIO:  # false for NaN
        return
    wrong = np.argmax(~(np.abs(block).max(axis=1) < NO_AUDIO))
    value = block[wrong][np.argmax(~(np.abs(block[wrong]) < NO_AUDIO))]
    what = f"a sample of {value:.3g}" if np.isfinite(value) else "NaN or infinity"
    raise AudioError(f"{name}: {what} at {(position + wrong) / rate:.3f} s; export the file again")


def _check_early_end(file: BinaryIO, name: str, position: int, frames: int, rate: int, warnings: list[str]) -> None:
    """The decoder stopped before the stated end. A file that was cut off is used; a damaged one is refused."""
    at_end = os.lseek(file.fileno(), 0, os.SEEK_CUR) >= os.fstat(file.fileno()).st_size
    left = frames - position
    goes_on = any(_decodes_at(file, position + left * eighth // 8) for eighth in range(1, 8))
    damage = container.mp3_damage(file, math.inf)[0] if _fresh_decoder(file).format == "MP3" else None
    if damage is not None or goes_on or not at_end:
        raise AudioError(_damaged(name, position / rate if damage is None else damage, frames / rate))
    warnings.append(_ends_early(name, position / rate, frames / rate))


def _decodes_at(file: BinaryIO, position: int) -> bool:
    return next(_blocks(file, position, position + 1), None) is not None


def _check_container(
    file: BinaryIO, name: str, kind: str, rate: int, frames: int, stop: float, warnings: list[str]
) -> None:
    """Damage before `stop` and an early end that the decoder would pass over."""
    if (share := container.present_share(file)) < 1:
        warnings.append(_ends_early(name, frames / rate, frames / rate / share))
    if kind == "MP3":
        damage, walked = container.mp3_damage(file, stop + 1)
        if damage is not None and damage < stop:
            # Not refused: tags and joins in the middle of a file look the same. If audio is lost, decoding ends early.
            warnings.append(f"{name}: bytes at {damage:.2f} s are no MP3 frame; the decoder skips them")
        elif walked > frames / rate + 0.5 and stop >= frames / rate:
            # A variable bit rate and no length in the header: the decoder stops where it estimates the end.
            warnings.append(f"{name}: audio after {frames / rate:.2f} s is not decoded; convert the file to FLAC")
    if kind == "OGG":
        damage = container.ogg_damage(file, rate, stop)
        if damage is not None:
            raise AudioError(_damaged(name, damage, frames / rate))
        if not container.ogg_is_finished(file):
            warnings.append(
                f"{name}: breaks off at {frames / rate:.2f} s without an end-of-stream page; what is there is used"
            )


def _damaged(name: str, seconds: float, file_seconds: float) -> str:
    where = f"damaged at {seconds:.2f} s of {file_seconds:.2f} s"
    return f"{name}: {where}; fetch it again, or give a segment before the damage"


def _ends_early(name: str, seconds: float, promised: float) -> str:
    return f"{name}: ends at {seconds:.2f} s, though its header promises {promised:.2f} s; what is there is used"


def _one_line(text: str) -> str:
    """Text that prints on one line: control characters and broken encodings are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
