"""GuitarSet: 360 excerpts of about 30 s of acoustic guitar by six players (Xi et al. 2018), as two data sets.

Each player plays each piece twice: an accompaniment (`comp`), then a solo above it. `guitarset` asks about the excerpts
whole. `guitarset_transcription` has nothing but transcriptions: the chords of an accompaniment, and the notes of a solo
in pieces of 10 s, since those of 30 s are more text than a short row holds.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from data_pipelines.keys import KEYS, pitch_class, spelt_key
from data_pipelines.score_questions import PITCH_CLASSES, note_name
from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from mufun_jax.errors import ManifestError

PIECE_SECONDS = 10.0
_LARGEST = 1e6  # of a number in the files: seconds, pitches, beats a minute; a NaN is not below it either
_STYLES = {"BN": "bossa nova", "Funk": "funk", "Jazz": "jazz", "Rock": "rock", "SS": "singer-songwriter"}
STYLES = tuple(_STYLES.values())
_PLAYERS: dict[str, Split] = {"04": "validation", "05": "test"}  # the other four train
_NAME = re.compile(r"(0[0-5])_(BN|Funk|Jazz|Rock|SS)([123])-(\d{2,3})-([A-G][#b]?)_(comp|solo)")
# How chord books write Harte's shorthands; any other is written as it stands there.
_QUALITIES = {"maj": "", "min": "m", "min7": "m7", "hdim7": "m7b5", "minmaj7": "mM7", "maj6": "6", "min6": "m6"}


@dataclass(frozen=True)
class _Excerpt:
    """A file of annotations. `data` holds the observations of a namespace's annotations, in the file's order."""

    path: Path
    player: str
    style: str
    tempo: int
    part: str  # comp or solo
    data: dict[str, list[list[dict[str, Any]]]]

    @property
    def split(self) -> Split:
        return _PLAYERS.get(self.player, "train")

    @property
    def audio(self) -> str:
        return f"audio_mono-mic/{self.path.stem}_mic.wav"


def read_guitarset(folder: Path) -> Iterator[Clip]:
    """The excerpts by name: style, tempo and key, and of an accompaniment the chords."""
    for excerpt in _excerpts(folder):
        labels = [Label("style", (excerpt.style,), STYLES), Label("tempo", (str(_tempo(excerpt)),))]
        keys = {spelt_key(str(one.get("value"))) for data in excerpt.data.get("key_mode", []) for one in data}
        key = keys.pop() if len(keys) == 1 else None
        if key is not None:
            labels.append(Label("key", (key,), KEYS))
        if excerpt.part == "comp" and (chords := _chords(excerpt)):
            labels.append(Label("chords", (", ".join(chords),)))
        yield Clip(f"guitarset-{excerpt.path.stem}", excerpt.audio, excerpt.split, tuple(labels))


def read_guitarset_transcription(folder: Path) -> Iterator[Clip]:
    """The chords of each accompaniment, and pieces of each solo with the notes that begin in them."""
    for excerpt in _excerpts(folder):
        name = f"guitarset_transcription-{excerpt.path.stem}"
        if excerpt.part == "comp":
            if chords := _chords(excerpt):
                label = Label("chords", (", ".join(chords),))
                yield Clip(name, excerpt.audio, excerpt.split, (label,))
            continue
        notes = _notes(excerpt)
        for number in range(int(notes[-1][0] // PIECE_SECONDS) + 1 if notes else 0):
            start, end = number * PIECE_SECONDS, (number + 1) * PIECE_SECONDS
            heard = [note_name(pitch) for time, pitch in notes if start <= time < end]
            if heard:
                label = Label("notes", (" ".join(heard),))
                yield Clip(f"{name}-{number}", excerpt.audio, excerpt.split, (label,), (start, end))


def chord_name(written: str) -> str | None:
    """`Bbm7` for Harte's `A#:min7`, whatever the bass; None where no chord is played. Raises ValueError."""
    if written in ("N", "X"):
        return None
    root, _, quality = written.partition("/")[0].partition(":")
    tonic = pitch_class(root)
    if tonic is None:
        raise ValueError(f"{written!r} is no chord")
    return PITCH_CLASSES[tonic] + _QUALITIES.get(quality, quality)


def _excerpts(folder: Path) -> Iterator[_Excerpt]:
    paths = sorted((folder / "annotation").glob("*.jams"))
    if not paths:
        raise ManifestError(f"{folder}: holds no annotation/*.jams; unpack annotation.zip into annotation/ there")
    for path in paths:
        parts = _NAME.fullmatch(path.stem)
        if parts is None:
            raise ManifestError(f"{path}: a file of GuitarSet is named like 00_BN1-129-Eb_comp.jams")
        yield _Excerpt(path, parts[1], _STYLES[parts[2]], int(parts[4]), parts[6], _annotations(path))


def _annotations(path: Path) -> dict[str, list[list[dict[str, Any]]]]:
    try:
        annotations = json.loads(path.read_bytes())["annotations"]
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not JSON: {error}; fetch it again") from None
    except (KeyError, TypeError):
        raise ManifestError(f"{path}: holds no annotations; fetch it again") from None
    data: dict[str, list[list[dict[str, Any]]]] = {}
    listed: list[Any] = annotations if isinstance(annotations, list) else [None]
    for number, one in enumerate(listed, 1):
        observed = one.get("data") if isinstance(one, dict) else None
        if not isinstance(one, dict) or not isinstance(one.get("namespace"), str):
            raise ManifestError(f"{path}, annotation {number}: has no namespace; fetch it again")
        if one["namespace"] not in ("key_mode", "tempo", "chord", "note_midi"):
            continue
        if not isinstance(observed, list) or not all(isinstance(each, dict) for each in observed):
            raise ManifestError(f"{path}, annotation {number}: its data is no list of observations; fetch it again")
        data.setdefault(one["namespace"], []).append(observed)
    return data


def _tempo(excerpt: _Excerpt) -> int:
    """The annotated one, or that of the file's name: they are the metronome's."""
    observed = [one.get("value") for data in excerpt.data.get("tempo", []) for one in data]
    if not observed:
        return excerpt.tempo
    if not _is_number(observed[0]) or round(observed[0]) < 1:
        raise ManifestError(f"{excerpt.path}: {str(observed[0])[:40]!r} is no tempo in beats a minute")
    return round(observed[0])


def _chords(excerpt: _Excerpt) -> list[str]:
    """The chords that the player was told to play (the first of two annotations), each once where it goes on."""
    chords: list[str] = []
    for one in excerpt.data["chord"][0] if "chord" in excerpt.data else []:
        try:
            chord = chord_name(str(one.get("value")))
        except ValueError as error:
            raise ManifestError(f"{excerpt.path}: {error}; fetch it again") from None
        if chord is not None and chord not in chords[-1:]:
            chords.append(chord)
    return chords


def _notes(excerpt: _Excerpt) -> list[tuple[float, int]]:
    """Beginning in seconds and MIDI pitch of the notes of all six strings, in time."""
    notes = []
    for one in (one for data in excerpt.data.get("note_midi", []) for one in data):
        time, pitch = one.get("time"), one.get("value")
        if not _is_number(time) or not _is_number(pitch) or time < 0 or not 0 <= round(pitch) <= 127:
            raise ManifestError(f"{excerpt.path}: a note without a time and a MIDI pitch; fetch it again")
        notes.append((float(time), round(pitch)))
    return sorted(notes)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


_LAYOUT = "annotation/*.jams (annotation.zip) and audio_mono-mic/*_mic.wav (audio_mono-mic.zip)"
_SPLITS = "no official ones; ours, by player: 00 to 03 train, 04 validation, 05 test"
_URL = "https://zenodo.org/records/3371780"
GUITARSET = DataSet(
    name="guitarset",
    read=read_guitarset,
    licence="CC BY 4.0",
    hours=3.0,
    layout=_LAYOUT,
    url=_URL,
    splits=_SPLITS,
)
GUITARSET_TRANSCRIPTION = DataSet(
    name="guitarset_transcription",
    read=read_guitarset_transcription,
    licence="CC BY 4.0",
    hours=3.0,
    layout=_LAYOUT,
    url=_URL,
    splits=_SPLITS,
)
