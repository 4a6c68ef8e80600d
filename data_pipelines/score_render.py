"""Sound for note lists: a piece played at a tempo, synthesised, resampled and written as FLAC.

What is played is decided first (`play_note`, `play_bars`: pure functions of a random generator) and rendered
later (`write_clips`, in a worker process), so the sound does not depend on which worker renders it, or when.
"""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr

from data_pipelines.score_pieces import Note, Piece, krumhansl_key
from mufun_jax.errors import UserError

if TYPE_CHECKING:
    from tinysoundfont import Synth

SYNTH_RATE = 44_100
SAMPLE_RATE = 16_000
_CHANNELS = 16
MELODY, BASS = 0, 1
_BASS_PROGRAM = 32  # General MIDI's acoustic bass
_RELEASE = 0.35  # seconds after the last key is let go
_FADE = 0.03  # seconds; cuts the tail without a click
_SETTLE = 3.0  # seconds of silence after which the synthesiser is as new
_PEAK = 0.5
_GAIN_RANGE_DB = 3.0
_EXCERPT_SECONDS = (5.0, 9.0)
_SONG_SECONDS = (20.0, 38.0)  # 39 s with the silence before and the release after


@dataclass(frozen=True)
class Stroke:
    """A key held from `start` to `stop` (seconds in the clip); velocity 1 to 127."""

    start: float
    stop: float
    pitch: int
    velocity: int
    channel: int = MELODY


@dataclass(frozen=True)
class Clip:
    """All that determines one file's sound: `seconds` long, peak at `peak` of full scale.

    `program` is the melody's General MIDI program, 0-based; `others` are those of channel 2 and on.
    """

    path: str
    program: int
    seconds: float
    peak: float
    strokes: tuple[Stroke, ...]
    others: tuple[int, ...] = ()


def random_peak(rng: random.Random) -> float:
    return _PEAK * 10 ** (rng.uniform(-_GAIN_RANGE_DB, _GAIN_RANGE_DB) / 20)


def play_note(path: str, program: int, pitch: int, rng: random.Random) -> Clip:
    """One note, 1.0 to 2.5 s long with its release, beginning within the first 0.3 s."""
    onset, length = rng.uniform(0.0, 0.3), rng.uniform(1.0, 2.5)
    stroke = Stroke(onset, onset + length - _RELEASE, pitch, rng.randint(70, 115))
    return Clip(path, program, onset + length, random_peak(rng), (stroke,))


def bar_seconds(piece: Piece, tempo: int) -> float:
    """Seconds a bar at `tempo` beats a minute."""
    return piece.bar / piece.beat * 60 / tempo


@dataclass(frozen=True)
class Passage:
    """`bars` bars of a piece from `first_bar`, `transposition` semitones up, `tempo` in beats a minute."""

    piece: Piece
    first_bar: int
    bars: int
    transposition: int
    tempo: int
    bass: bool

    def notes(self) -> list[Note]:
        """What the melody plays, transposed; onsets and durations in quarter notes."""
        written = self.piece.window(self.first_bar, self.bars)
        return [Note(note.onset, note.duration, note.pitch + self.transposition) for note in written]


def draw_excerpt(piece: Piece, transposition: int, tempo: int, rng: random.Random) -> Passage:
    """A few bars of 5 to 9 s; of some places tried, the first that is heard in the piece's key."""
    low, high = (seconds / bar_seconds(piece, tempo) for seconds in _EXCERPT_SECONDS)
    bars = min(piece.bars, rng.randint(ceil(low), int(high)))
    bass = rng.random() < 0.5
    wanted = ((piece.tonic + transposition) % 12, piece.mode)
    starts = [rng.randint(0, piece.bars - bars) for _ in range(8)]
    passages = [Passage(piece, start, bars, transposition, tempo, bass) for start in starts]
    return next((one for one in passages if krumhansl_key(one.notes()) == wanted), passages[0])


def draw_song(
    piece: Piece,
    transposition: int,
    tempo: int,
    rng: random.Random,
    seconds: tuple[float, float] = _SONG_SECONDS,
) -> Passage:
    """The whole tune, again from its beginning while shorter than the first of `seconds`, stopped before the second."""
    one_bar = bar_seconds(piece, tempo)
    shortest, longest = (length / one_bar for length in seconds)
    bars = piece.bars * ceil(shortest / piece.bars)
    return Passage(piece, 0, min(bars, int(longest)), transposition, tempo, rng.random() < 0.5)


def play_bars(path: str, program: int, passage: Passage, rng: random.Random) -> Clip:
    """A passage, the first beat of each bar accented and other beats a little: meter is heard by it."""
    piece = passage.piece
    quarter = 60 / passage.tempo / piece.beat
    lead = rng.uniform(0.0, 0.2)
    strokes = []
    for note in passage.notes():
        in_bar = note.onset % piece.bar
        accent = 26 if min(in_bar, piece.bar - in_bar) < 1e-6 else 8 if in_bar % piece.beat < 1e-6 else 0
        start = lead + note.onset * quarter
        # A little short of its length, so that a repeated note is struck anew.
        stop = start + 0.92 * note.duration * quarter
        strokes.append(Stroke(start, stop, note.pitch, 78 + accent + rng.randint(-6, 6)))
    if passage.bass:
        for number, pitch in enumerate(_bass_line(passage)):
            start = lead + number * piece.bar * quarter
            strokes.append(Stroke(start, start + 0.85 * piece.bar * quarter, pitch, 62, BASS))
    seconds = lead + passage.bars * piece.bar * quarter + _RELEASE
    return Clip(path, program, seconds, random_peak(rng), tuple(strokes))


def _bass_line(passage: Passage) -> list[int]:
    """A MIDI pitch a bar: the root of the main triad (I, V or IV) that shares most with the bar."""
    piece = passage.piece
    tonic = piece.tonic + passage.transposition
    third = 4 if piece.mode == "major" else 3
    triads = {tonic: (0, third, 7), tonic + 7: (7, 11, 2), tonic + 5: (5, 5 + third, 0)}
    weights = np.zeros((passage.bars, 12))
    for note in passage.notes():
        weights[int(note.onset / piece.bar + 1e-6), (note.pitch - tonic) % 12] += note.duration
    shared = np.stack([weights[:, np.array(degrees) % 12].sum(axis=1) for degrees in triads.values()])
    roots = list(triads)
    # Of equals argmax takes the first, the tonic.
    return [36 + roots[best] % 12 for best in shared.argmax(axis=0)]


def soundfont_path() -> Path:
    """The General MIDI soundfont that pretty_midi ships (TimGM6mb, GPL-2; not copied into the corpus)."""
    spec = find_spec("pretty_midi")
    if spec is None or spec.origin is None:
        raise UserError("pretty_midi, which the score corpus needs, is missing: pip install 'mufun_jax[score]'")
    path = Path(spec.origin).parent / "TimGM6mb.sf2"
    if not path.is_file():
        raise UserError(f"pretty_midi is installed without its soundfont {path.name}; reinstall pretty_midi")
    return path


def check_soundfont(path: Path) -> None:
    """A UserError if the file is not there or is no SF2 or SF3 soundfont: RIFF of the form sfbk."""
    if not path.is_file():
        raise UserError(
            f"no soundfont {path}; Debian's fluid-soundfont-gm has one, /usr/share/sounds/sf2/FluidR3_GM.sf2"
        )
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"sfbk":
        raise UserError(f"{path} is no soundfont: an .sf2 begins with RIFF and sfbk")


def check_synthesiser() -> None:
    """A UserError if tinysoundfont is not installed."""
    if find_spec("tinysoundfont") is None:
        raise UserError("tinysoundfont, which the score corpus needs, is missing: pip install --no-deps tinysoundfont")


@cache
def _synth(soundfont: str) -> "tuple[Synth, int]":
    """The process's synthesiser and its soundfont's id: loading takes longer than rendering a note."""
    from tinysoundfont import Synth

    # 10 dB down: a chord at full velocity stays below 1 until the peak is set.
    synth = Synth(gain=-10.0, samplerate=SYNTH_RATE)
    return synth, synth.sfload(soundfont)


def _generate(synth: "Synth", frames: int) -> np.ndarray:
    """Stereo frames (frames, 2) in float32."""
    return np.frombuffer(synth.generate(frames), np.float32).reshape(frames, 2)


def synthesise(clip: Clip, soundfont: str) -> np.ndarray:
    """The clip's samples, mono float32 at 16 kHz; the same bits whatever was synthesised before."""
    synth, font = _synth(soundfont)
    synth.program_select(MELODY, font, 0, clip.program)
    synth.program_select(BASS, font, 0, _BASS_PROGRAM)
    for channel, program in enumerate(clip.others, BASS + 1):
        synth.program_select(channel, font, 0, program)
    events = []
    for stroke in clip.strokes:
        # Off (0) sorts before on (1): a key is let go before it is struck again.
        events.append((round(stroke.start * SYNTH_RATE), 1, stroke))
        events.append((round(stroke.stop * SYNTH_RATE), 0, stroke))
    position, parts = 0, []
    for frame, on, stroke in sorted(events, key=lambda event: event[:2]):
        if frame > position:
            parts.append(_generate(synth, frame - position))
            position = frame
        if on:
            synth.noteon(stroke.channel, stroke.pitch, stroke.velocity)
        else:
            synth.noteoff(stroke.channel, stroke.pitch)
    parts.append(_generate(synth, round(clip.seconds * SYNTH_RATE) - position))
    for channel in range(_CHANNELS):
        synth.sounds_off(channel)
    _generate(synth, round(_SETTLE * SYNTH_RATE))
    mono = np.concatenate(parts).mean(axis=1)
    fade = round(_FADE * SYNTH_RATE)
    mono[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    samples = soxr.resample(mono, SYNTH_RATE, SAMPLE_RATE, quality="HQ")
    loudest = float(np.abs(samples).max())
    assert loudest > 1e-4, f"{clip.path} is silent"
    return samples * np.float32(clip.peak / loudest)


def write_clips(out: str, soundfont: str, clips: Sequence[Clip]) -> list[float]:
    """Render a batch of clips under the folder `out`; their lengths in seconds, in the same order."""
    lengths = []
    for clip in clips:
        samples = synthesise(clip, soundfont)
        # Encoded in memory first: on a network or overlay file system many small writes are slow.
        encoded = io.BytesIO()
        soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        (Path(out) / clip.path).write_bytes(encoded.getbuffer())
        lengths.append(len(samples) / SAMPLE_RATE)
    return lengths
