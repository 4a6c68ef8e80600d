"""From a file of any format, rate and channel count to mono 16 kHz samples, or to one line that says why not.

libsndfile decodes, soxr resamples. Files are read in blocks and only as far as they are needed. Channels are mixed
by their mean.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr
from jaxtyping import Float32

from mufun_jax.audio import container, decoder, flac
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError

DECODED_LIMIT = 256 * 1024**2  # bytes of 16-bit mono, at the file's rate and at ours: a header's seconds may lie
SHORTEST = 0.1  # seconds
RESAMPLER_REACH = 0.1  # seconds; the resampler's filter is far shorter

_SAME = 0.0005  # seconds; lengths are told to the millisecond

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


@dataclass
class _Source:
    """An open file, what its header says, and what there is to say about it."""

    file: BinaryIO
    name: str
    kind: str  # libsndfile's name of the format
    rate: int
    frames: int
    tolerant: bool  # of damage
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


def load_waveform(
    audio: str | Path | bytes,
    *,
    name: str | None = None,
    segment: Sequence[int | float] | None = None,
    max_seconds: int | float = 3600.0,
    longest: int | float | None = None,
    tolerate_damage: bool = False,
) -> Waveform:
    """Decode a file, or the seconds (start, end) of it, to mono 16 kHz float32.

    `audio` is its path, or its bytes; messages call it by `name`, by default its path.

    A segment is cut from the resampled file, sample for sample: its edges do not depend on where it was cut.
    `longest` stops decoding after so many seconds and says nothing: compare `end` with `file_seconds`. More than
    `max_seconds` to decode is an error. Everything wrong with the file or the arguments is an `AudioError`.

    Damage inside the file is an error too, unless `tolerate_damage`: then what can be decoded before and after it is
    joined, and a warning says how many seconds are lost. All that follows the damage is earlier by as much.
    Where parts of an MP3 are joined, what would decode to noise is silent, and counted as lost.
    """
    name = decoder.one_line(name or ("audio" if isinstance(audio, bytes) else str(audio)))
    start, end = _checked_segment(segment, name)
    with decoder.opened(audio, name) as file:
        sound = decoder.checked_decoder(file, name)
        source = _Source(file, name, sound.format, sound.samplerate, sound.frames, tolerate_damage)
        unknown_length = source.frames >= decoder.UNKNOWN_LENGTH
        if unknown_length:
            source.frames = _measured(source)
        start, stop = _planned(source, start, end, max_seconds, longest)
        damage = _check_container(source, stop)
        with ExitStack() as copies:
            if unknown_length:
                source.file = copies.enter_context(_with_length(source))
            elif damage is not None and damage.whole:
                source.file = copies.enter_context(_without_damage(source, damage))
            mix = _mixed_down(source, start, stop, damage)

    file_seconds = (source.frames if mix.frames is None else mix.frames) / source.rate
    if start >= file_seconds:  # the header promised more; what is there is used
        raise AudioError(
            f"{name}: cannot be decoded from {start:g} s on, though its header promises "
            f"{source.seconds:.2f} s; give an earlier segment, or fetch it again"
        )
    end = start + len(mix.samples) / SAMPLE_RATE
    if end - start < SHORTEST:
        raise AudioError(f"{name}: only {end - start:.3g} s of audio at {start:g} s; at least {SHORTEST} s are needed")
    return Waveform(mix.finished(source), file_seconds, start, min(end, file_seconds), tuple(source.warnings))


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
    source: _Source, start: float, end: float, max_seconds: int | float, longest: int | float | None
) -> tuple[float, float]:
    """The seconds to decode, after all limits."""
    name, file_seconds = source.name, source.seconds
    if start >= file_seconds:
        raise AudioError(f"{name}: segment starts at {start:g} s, but the file ends at {file_seconds:.3f} s")
    if math.isfinite(end) and end > file_seconds + _SAME:
        source.warnings.append(
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


def _measured(source: _Source) -> int:
    """The number of frames of a FLAC whose header does not tell."""
    frames = flac.length(source.file) if source.kind == "FLAC" else None
    if frames is None:
        raise AudioError(
            f"{source.name}: tells its length nowhere, or ends in damage; fetch it again, or encode it anew"
        )
    return frames


def _with_length(source: _Source) -> BinaryIO:
    """A copy of a FLAC with its length in the header: without it, the decoder searches from the start every time."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
    source.file.seek(0)
    file.write(flac.with_length(source.file.read(1024**2), source.frames))
    shutil.copyfileobj(source.file, file, 1024**2)
    return file


def _check_decoded_size(source: _Source, frames: int) -> None:
    decoded = 2 * max(frames, math.ceil(frames / source.rate * SAMPLE_RATE))
    if decoded > DECODED_LIMIT:
        raise AudioError(
            f"{source.name}: decodes to at least {decoded} bytes ({frames} frames at {source.rate} Hz), more than the "
            f"limit of {DECODED_LIMIT}; give a segment"
        )


# --- decoding ------------------------------------------------------------------------------------------------------


@dataclass
class _Mix:
    """The mean of the channels at 16 kHz, and what was noticed on the way."""

    samples: Float32[np.ndarray, " samples"] = field(default_factory=lambda: np.zeros(0, np.float32))
    channel_power: float = 0.0  # summed over frames, mean over channels
    mix_power: float = 0.0
    frames: int | None = None  # of the file, if they are fewer than its header says

    def add(self, block: np.ndarray) -> np.ndarray:
        """The mean of the channels of a block [frames, channels]."""
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        # For two channels the same numbers as block.mean, in a tenth of the time.
        mono = (block[:, 0] + block[:, 1]) * np.float32(0.5) if channels == 2 else block.mean(axis=1)
        every = block.ravel()
        self.channel_power += float(np.einsum("i,i->", every, every)) / channels
        self.mix_power += float(np.einsum("i,i->", mono, mono))
        return mono

    def finished(self, source: _Source) -> Float32[np.ndarray, " samples"]:
        """The samples at a sane scale, with warnings about what was heard."""
        name, frames = source.name, max(1, len(self.samples))
        if self.channel_power / frames > AUDIBLE and self.mix_power < OPPOSITE_PHASE * self.channel_power:
            source.warnings.append(
                f"{name}: the channels are in opposite phase and cancel: the mix is 40 dB below them"
            )
        peak = max(float(self.samples.max()), -float(self.samples.min()))
        if peak > OVERLOAD:
            source.warnings.append(f"{name}: samples reach {peak:.3g}, where 1.0 is full scale; scaled down to 1.0")
            return self.samples / np.float32(peak)
        return self.samples


def _mixed_down(source: _Source, start: float, stop: float, damage: container.Damage | None) -> _Mix:
    """Decode seconds `start` to `stop`, mix and resample them."""
    # Decode a little more on both sides, from a frame that falls on a sample of ours, so that the resampled
    # segment is a slice of the resampled file. rate / gcd frames are 16,000 / gcd samples exactly.
    rate = source.rate
    divisor = math.gcd(rate, SAMPLE_RATE)
    steps = max(0, math.floor((start - RESAMPLER_REACH) * divisor))
    first = steps * (rate // divisor)
    last = min(source.frames, math.ceil((stop + RESAMPLER_REACH) * rate))
    _check_decoded_size(source, last - first)

    mix = _Mix()
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    parts: list[np.ndarray] = []
    decoded, reached, gap = 0, first, None
    past_damage = source.tolerant and source.kind == "FLAC"  # other decoders go past it themselves
    for position, block in decoder.placed_blocks(source.file, first, last, rate, past_damage=past_damage):
        gap = reached if gap is None and position > reached else gap
        _check_samples(source, block, position)
        for joint in () if damage is None else damage.joints:
            noise = [
                round((joint + edge) * rate) - position for edge in (-container.MP3_UNSURE[0], container.MP3_UNSURE[1])
            ]
            block[max(0, noise[0]) : max(0, noise[1])] = 0
        mono = mix.add(block)
        decoded += len(block)
        reached = position + len(block)
        parts.append(mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono))
    if rate != SAMPLE_RATE and decoded:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    missing = last - first - decoded
    if missing:
        mix.frames = first + decoded if reached < last else source.frames - missing
    _report_loss(source, damage, gap, reached, last, missing)

    origin = steps * (SAMPLE_RATE // divisor)
    samples = np.concatenate(parts) if parts else mix.samples
    mix.samples = samples[round(start * SAMPLE_RATE) - origin : round(stop * SAMPLE_RATE) - origin]
    return mix


def _check_samples(source: _Source, block: np.ndarray, position: int) -> None:
    if max(float(block.max()), -float(block.min())) < NO_AUDIO:  # false for NaN
        return
    wrong = np.argmax(~(np.abs(block).max(axis=1) < NO_AUDIO))
    value = block[wrong][np.argmax(~(np.abs(block[wrong]) < NO_AUDIO))]
    what = f"a sample of {value:.3g}" if np.isfinite(value) else "NaN or infinity"
    raise AudioError(f"{source.name}: {what} at {(position + wrong) / source.rate:.3f} s; export the file again")


# --- damage --------------------------------------------------------------------------------------------------------


def _check_container(source: _Source, stop: float) -> container.Damage | None:
    """Damage before `stop` and an early end that the decoder would pass over."""
    file, name, seconds = source.file, source.name, source.seconds
    if (share := container.present_share(file)) < 1:
        source.warnings.append(_ends_early(source, seconds, seconds / share))
    if source.kind == "MP3":
        damage, walked = container.mp3_damage(file, stop + 1)
        if damage is not None and damage.seconds < stop:
            if source.tolerant:
                return damage
            # Not refused: tags and joins in the middle of a file look the same. If audio is lost, decoding ends early.
            source.warnings.append(f"{name}: bytes at {damage.seconds:.2f} s are no MP3 frame; the decoder skips them")
        elif walked > seconds + 0.5 and stop >= seconds:
            # A variable bit rate and no length in the header: the decoder stops where it estimates the end.
            source.warnings.append(f"{name}: audio after {seconds:.2f} s is not decoded; convert the file to FLAC")
    if source.kind == "OGG":
        damage = container.ogg_damage(file, source.rate, stop, to_end=stop >= seconds)
        if damage is not None and not source.tolerant:
            raise AudioError(_damaged(name, f"{damage.seconds:.2f} s of {seconds:.2f} s"))
        if not container.ogg_is_finished(file):
            source.warnings.append(
                f"{name}: breaks off at {seconds:.2f} s without an end-of-stream page; what is there is used"
            )
        return damage
    return None


def _without_damage(source: _Source, damage: container.Damage) -> BinaryIO:
    """The file with its damage cut out: the decoder of MP3 stops at too much of it."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the caller closes it)
    for begin, end in damage.whole:
        source.file.seek(begin)
        file.write(source.file.read(end - begin))
    return file


def _report_loss(
    source: _Source, damage: container.Damage | None, gap: int | None, reached: int, last: int, missing: int
) -> None:
    """Say what is missing of the frames asked for. A file that was cut off is used; a damaged one if tolerated.

    `damage` is what the container shows, `gap` the frame at which the decoder lost its way and found it again; with
    neither, it stopped at the frame `reached` and `missing` frames do not follow.
    """
    if damage is None and gap is None and not missing:
        return
    where = math.inf if gap is None else gap / source.rate
    if damage is not None:
        where = min(where, damage.seconds)
    if math.isinf(where):
        stopped = _damage_at_end(source, reached)
        if stopped is None:
            source.warnings.append(_ends_early(source, reached / source.rate, source.seconds))
            return
        where = stopped
        if not source.tolerant:
            raise AudioError(_damaged(source.name, f"{where:.2f} s of {source.seconds:.2f} s"))
    lost = missing / source.rate
    if damage is not None:
        if not missing or reached == last:  # what lies behind took the place of what is lost
            lost = max(lost, damage.lost)
        lost += len(damage.joints) * sum(container.MP3_UNSURE)
    source.warnings.append(
        f"{source.name}: damaged at {where:.2f} s; about {lost:.2f} s are lost, and the rest is joined"
    )


def _damage_at_end(source: _Source, position: int) -> float | None:
    """The second of the damage at which the decoder stopped before the stated end; None if the file was cut off."""
    file = source.file
    at_end = os.lseek(file.fileno(), 0, os.SEEK_CUR) >= os.fstat(file.fileno()).st_size
    left = source.frames - position
    goes_on = any(decoder.decodes_at(file, position + left * eighth // 8) for eighth in range(1, 8))
    damage = container.mp3_damage(file, math.inf)[0] if source.kind == "MP3" else None
    if damage is not None:
        return damage.seconds
    return position / source.rate if goes_on or not at_end else None


def _damaged(name: str, where: str) -> str:
    return f"{name}: damaged at {where}; fetch it again, give a segment before the damage, or tolerate it"


def _ends_early(source: _Source, seconds: float, promised: float) -> str:
    return f"{source.name}: ends at {seconds:.2f} s, though its header promises {promised:.2f} s; what is there is used"
