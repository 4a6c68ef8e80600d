"""NSynth: 305,979 single notes of 4 s from 1,006 instruments (Engel et al. 2017)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.score_questions import note_name
from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from mufun_jax.errors import ManifestError

FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth lead",
    "vocal",
)
SOURCES = ("acoustic", "electronic", "synthetic")
QUALITIES = (
    "bright",
    "dark",
    "distortion",
    "fast decay",
    "long release",
    "multiphonic",
    "nonlinear envelope",
    "percussive",
    "reverb",
    "tempo-synced",
)
# The notes of a piano, 21 to 108: fewer than MIDI has, so that wrong options are notes that can be heard.
NOTES = tuple(note_name(pitch) for pitch in range(21, 109))

_FOLDERS: dict[Split, str] = {"train": "nsynth-train", "validation": "nsynth-valid", "test": "nsynth-test"}
_WRITTEN = {"synth_lead": "synth lead", "nonlinear_env": "nonlinear envelope"}
_WRITTEN |= {"fast_decay": "fast decay", "long_release": "long release"}


def read_nsynth(folder: Path) -> Iterator[Clip]:
    """The notes of the splits whose folders are there, by name."""
    if not any((folder / name / "examples.json").is_file() for name in _FOLDERS.values()):
        raise ManifestError(f"{folder}: holds no nsynth-train, nsynth-valid or nsynth-test with an examples.json")
    for split, folder_name in _FOLDERS.items():
        if (table := folder / folder_name / "examples.json").is_file():
            notes = _notes(table)
            for name in sorted(notes):
                yield _clip(name, notes[name], split, table)


def _notes(table: Path) -> dict[str, Any]:
    try:
        notes = json.loads(table.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{table}: not JSON: {error}; fetch the file again") from None
    if not isinstance(notes, dict):
        raise ManifestError(f"{table}: must be a JSON object of notes, not {type(notes).__name__}")
    return notes


def _clip(name: str, note: Any, split: Split, table: Path) -> Clip:
    pitch = _field(name, note, "pitch", table)
    if isinstance(pitch, bool) or not isinstance(pitch, int) or not 0 <= pitch <= 127:
        raise ManifestError(f"{table}, note {name}: pitch must be a MIDI number from 0 to 127, not {pitch!r}")
    family = _word(_field(name, note, "instrument_family_str", table), FAMILIES, name, table)
    source = _word(_field(name, note, "instrument_source_str", table), SOURCES, name, table)
    written = _field(name, note, "qualities_str", table)
    if not isinstance(written, list):
        raise ManifestError(f"{table}, note {name}: qualities_str must be a list, not {written!r}")
    qualities = tuple(_word(quality, QUALITIES, name, table) for quality in written)
    labels = [
        Label("instrument", (family,), FAMILIES),
        Label("pitch", (note_name(pitch),), NOTES),
        Label("source", (source,), SOURCES),
    ]
    if qualities:
        labels.append(Label("quality", qualities, QUALITIES))
    return Clip(f"nsynth-{name}", f"{_FOLDERS[split]}/audio/{name}.wav", split, tuple(labels))


def _field(name: str, note: Any, field: str, table: Path) -> Any:
    if not isinstance(note, dict) or field not in note:
        raise ManifestError(f"{table}, note {name}: has no {field}; fetch the file again")
    return note[field]


def _word(written: Any, words: tuple[str, ...], name: str, table: Path) -> str:
    word = _WRITTEN.get(written, written) if isinstance(written, str) else None
    if word not in words:
        raise ManifestError(f"{table}, note {name}: {written!r} is none of {', '.join(words)}")
    return word


NSYNTH = DataSet(
    name="nsynth",
    read=read_nsynth,
    licence="CC BY 4.0",
    hours=340.0,
    layout="nsynth-train/, nsynth-valid/ and nsynth-test/ (one is enough), each with examples.json and audio/*.wav",
    url="https://magenta.tensorflow.org/datasets/nsynth",
    splits="official: 289,205/12,678/4,096 notes; no instrument of the training notes is in the others",
)
