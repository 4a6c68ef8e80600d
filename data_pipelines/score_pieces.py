"""Tunes of music21's corpus as plain note lists, with the labels that their ABC text declares.

A tune is read with music21's ABC tokeniser (about 2 ms), not turned into a score (about 50 ms). Kept are
tunes in a major or minor key that Krumhansl's analysis hears too, in one meter, and of which no passage of
`DUPLICATE_INTERVALS` intervals stands in a tune kept before: the collections share many tunes, under other
titles, in other keys and with small changes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mufun_jax.errors import UserError

if TYPE_CHECKING:
    from music21.abcFormat import ABCNote, ABCToken

COLLECTIONS = {
    "airdsAirs": "James Aird, Glasgow 1778-1801; transcribed by Jack Campin",
    "oneills1850": "O'Neill's Music of Ireland, 1903; transcribed by Norbert Paap and others",
    "ryansMammoth": "Ryan's Mammoth Collection, 1883; transcribed by Ray Davies and others",
}
METERS = ("2/4", "3/4", "4/4", "6/8", "9/8")
DANCES = ("reel", "jig", "hornpipe", "slip jig", "strathspey")
DUPLICATE_INTERVALS = 16
MIN_BARS = 8

# Cut time is written for the eye: rendered with the quarter as the beat, it sounds as 4/4 does.
_METER_NAMES = {"C": "4/4", "C|": "4/4"} | {meter: meter for meter in METERS}
_DANCE_NAMES = {"double jig": "jig", "slipjig": "slip jig"} | {dance: dance for dance in DANCES}
_MODE_NAMES = {"": "major", "maj": "major", "major": "major", "min": "minor", "minor": "minor"}
_KEY = re.compile(r"([A-G])([#b]?)\s*([A-Za-z]*)\s*(?:%.*)?$")
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
# Krumhansl and Kessler 1982, probe-tone ratings from the tonic upwards.
_MAJOR_PROFILE = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR_PROFILE = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


@dataclass(frozen=True)
class Note:
    """A sounding note: onset and duration in quarter notes, pitch as a MIDI number."""

    onset: float
    duration: float
    pitch: int


@dataclass(frozen=True)
class TuneText:
    """The raw ABC text of one tune, `name` as collection/file/number within the file."""

    name: str
    text: str


@dataclass(frozen=True)
class Piece:
    """A tune in whole bars; lengths in quarter notes, `tonic` a pitch class (0 = C)."""

    name: str
    tonic: int
    mode: str
    meter: str
    dance: str | None
    bar: float
    beat: float
    bars: int
    notes: tuple[Note, ...]
    intervals: tuple[int, ...]

    def window(self, first_bar: int, bars: int) -> list[Note]:
        """The notes that begin in `bars` bars from `first_bar`, onsets from 0; the tune starts anew."""
        assert 0 <= first_bar < self.bars, (first_bar, self.bars)
        found = []
        for repeat in range((first_bar + bars - 1) // self.bars + 1):
            shift = (repeat * self.bars - first_bar) * self.bar
            for note in self.notes:
                onset = note.onset + shift
                if -1e-6 < onset < bars * self.bar - 1e-6:
                    found.append(Note(onset, min(note.duration, bars * self.bar - onset), note.pitch))
        return found


@dataclass(frozen=True)
class _Event:
    """A note (or a rest, without pitch) where it stands in its bar; `tied` to the one before it."""

    offset: float
    duration: float
    pitch: int | None
    tied: bool


def read_tune_texts() -> list[TuneText]:
    """Every tune of the collections whose header this corpus can use, in the order of their files."""
    spec = find_spec("music21")
    if spec is None or spec.origin is None:
        raise UserError("music21, which the score corpus needs, is missing: pip install 'mufun_jax[score]'")
    tunes = []
    for collection in COLLECTIONS:
        folder = Path(spec.origin).parent / "corpus" / collection
        files = sorted(folder.glob("*.abc"))
        if not files:
            raise UserError(f"music21 is installed without its corpus (no tunes in {folder}); reinstall it")
        for file in files:
            text = file.read_text(encoding="utf-8")
            for number, tune in enumerate(re.split(r"(?m)^(?=X:)", text)[1:]):
                if _declared_labels(tune) is not None:
                    tunes.append(TuneText(f"{collection}/{file.stem}/{number}", tune))
    return tunes


def _declared_labels(text: str) -> tuple[int, str, str, str | None] | None:
    """Tonic, mode, meter and dance from the header lines; None where key or meter is of no use."""
    keys = re.findall(r"(?m)^K:\s*(.*?)\s*$", text)
    meters = re.findall(r"(?m)^M:\s*(.*?)\s*$", text)
    if len(keys) != 1 or len(meters) != 1 or re.search(r"\[[KM]:|^V:", text, re.MULTILINE):
        return None
    key = _KEY.match(keys[0])
    if key is None or meters[0] not in _METER_NAMES:
        return None
    letter, accidental, suffix = key.groups()
    # One letter tells the modes apart by its case: "Gm" is minor, "GM" major.
    mode = {"m": "minor", "M": "major"}.get(suffix) or _MODE_NAMES.get(suffix.lower())
    if mode is None:
        return None
    tonic = (_SEMITONES[letter] + {"#": 1, "b": -1, "": 0}[accidental]) % 12
    dance = re.search(r"(?m)^R:\s*(.*?)\s*$", text)
    return tonic, mode, _METER_NAMES[meters[0]], _DANCE_NAMES.get(dance[1].lower()) if dance else None


def read_piece(tune: TuneText) -> Piece | str:
    """One tune as a piece, or in a few words why it is left out."""
    from music21 import abcFormat

    labels = _declared_labels(tune.text)
    assert labels is not None, tune.name
    tonic, mode, meter, dance = labels
    handler = abcFormat.ABCHandler()
    try:
        handler.process(tune.text)
    except (abcFormat.ABCHandlerException, abcFormat.ABCTokenException):
        return "not readable"
    count, unit = (int(part) for part in meter.split("/"))
    bar = 4 * count / unit
    bars = _split_bars(handler.tokens)
    notes, whole_bars = _longest_run(bars, bar)
    if whole_bars < MIN_BARS:
        return f"fewer than {MIN_BARS} whole bars in a row"
    if krumhansl_key(notes) != (tonic, mode):
        return "declared key is not the heard one"
    # The whole tune counts here, so that a copy barred differently is still recognised.
    pitches = [event.pitch for events in bars for event in events if not event.tied]
    sounding = [pitch for pitch in pitches if pitch is not None]
    intervals = tuple(after - before for before, after in pairwise(sounding))
    beat = 1.5 if unit == 8 else 1.0
    return Piece(tune.name, tonic, mode, meter, dance, bar, beat, whole_bars, tuple(notes), intervals)


def read_pieces(tunes: Sequence[TuneText]) -> list[Piece | str]:
    """`read_piece` for a batch of tunes: the unit of work of a worker process."""
    return [read_piece(tune) for tune in tunes]


@lru_cache(maxsize=256)
def _midi_number(name: str) -> int:
    """The MIDI number of music21's pitch name, such as F#4 or B-4 (a minus is a flat)."""
    from music21 import pitch

    return int(pitch.Pitch(name).midi)


def _split_bars(tokens: "Sequence[ABCToken]") -> list[list[_Event]]:
    """Events bar by bar as written, repeats not played, grace notes and second endings left out.

    With the first ending played and no repeat, the second one would follow as a bar that no one plays there.
    """
    from music21 import abcFormat

    bars: list[list[_Event]] = [[]]
    offset, last_pitch, second_ending = 0.0, None, False
    for token in tokens:
        if isinstance(token, abcFormat.ABCBar):
            bars.append([])
            offset, second_ending = 0.0, token.isRepeatBracket() == 2
        elif isinstance(token, abcFormat.ABCNote) and not token.inGrace and not second_ending:
            pitch = _sounding_pitch(token)
            duration = float(token.quarterLength)
            # These transcribers write slurs between different pitches with the tie's sign.
            tied = token.tie in ("stop", "continue") and pitch is not None and pitch == last_pitch
            bars[-1].append(_Event(offset, duration, pitch, tied))
            offset, last_pitch = offset + duration, pitch
    return [bar for bar in bars if bar]


def _sounding_pitch(token: "ABCNote") -> int | None:
    """The MIDI pitch of a note, the highest one of a chord, None for a rest."""
    from music21 import abcFormat

    if isinstance(token, abcFormat.ABCChord):
        names = [part.pitchName for part in token.subTokens if isinstance(part, abcFormat.ABCNote)]
        return max((_midi_number(name) for name in names if name is not None), default=None)
    return None if token.pitchName is None else _midi_number(token.pitchName)


def _longest_run(bars: list[list[_Event]], length: float) -> tuple[list[Note], int]:
    """Notes and number of bars of the longest run of whole bars.

    A short bar before a repeat sign and the upbeat after it are one bar together.
    """
    sizes = [events[-1].offset + events[-1].duration for events in bars]
    best: list[list[_Event]] = []
    run: list[list[_Event]] = []
    index = 0
    while index < len(bars):
        if abs(sizes[index] - length) < 1e-6:
            run.append(bars[index])
        elif index + 1 < len(bars) and abs(sizes[index] + sizes[index + 1] - length) < 1e-6:
            moved = [_Event(e.offset + sizes[index], e.duration, e.pitch, e.tied) for e in bars[index + 1]]
            run.append(bars[index] + moved)
            index += 1
        else:
            run = []
        index += 1
        if len(run) > len(best):
            best = list(run)
    notes: list[Note] = []
    for number, events in enumerate(best):
        for event in events:
            onset = number * length + event.offset
            if event.tied and notes:
                notes[-1] = Note(notes[-1].onset, onset + event.duration - notes[-1].onset, notes[-1].pitch)
            elif event.pitch is not None:
                notes.append(Note(onset, event.duration, event.pitch))
    return notes, len(best)


def krumhansl_key(notes: Sequence[Note]) -> tuple[int, str]:
    """Tonic and mode whose Krumhansl-Kessler profile correlates best with the notes' durations."""
    heard = np.zeros(12)
    for note in notes:
        heard[note.pitch % 12] += note.duration
    heard -= heard.mean()
    scores = {}
    for mode, profile in (("major", _MAJOR_PROFILE), ("minor", _MINOR_PROFILE)):
        ratings = np.array(profile) - np.mean(profile)
        for tonic in range(12):
            scores[tonic, mode] = float(heard @ np.roll(ratings, tonic) / np.linalg.norm(ratings))
    return max(scores, key=lambda key: scores[key])


class TuneFilter:
    """Lets a tune through once: a later one that shares a passage with it is a duplicate."""

    def __init__(self) -> None:
        self._passages: set[tuple[int, ...]] = set()

    def is_new(self, intervals: Sequence[int]) -> bool:
        """Whether no passage stood in an earlier new tune; if so, the tune is remembered.

        Intervals, not pitches, so that a transposed copy is found; a tune too short to compare is not new.
        """
        width = DUPLICATE_INTERVALS
        passages = {tuple(intervals[i : i + width]) for i in range(len(intervals) - width + 1)}
        if not passages or passages & self._passages:
            return False
        self._passages |= passages
        return True
