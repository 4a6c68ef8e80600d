"""Groove MIDI data set: 13.6 hours of drumming to a metronome by ten drummers (Gillick et al. 2019), with its audio."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from data_pipelines.sources.layout import bad_row, columns, found
from mufun_jax.errors import nearest

# The first words of the table's styles, and how they are written here.
_STYLES = {
    "afrobeat": "Afrobeat",
    "afrocuban": "Afro-Cuban",
    "blues": "blues",
    "country": "country",
    "dance": "dance",
    "funk": "funk",
    "gospel": "gospel",
    "highlife": "highlife",
    "hiphop": "hip hop",
    "jazz": "jazz",
    "latin": "Latin",
    "middleeastern": "Middle Eastern",
    "neworleans": "New Orleans",
    "pop": "pop",
    "punk": "punk",
    "reggae": "reggae",
    "rock": "rock",
    "soul": "soul",
}
STYLES = tuple(_STYLES.values())
WRITTEN_STYLES = tuple(_STYLES)
WRITTEN_METERS = ("3-4", "4-4", "5-4", "5-8", "6-8")
METERS = tuple(meter.replace("-", "/") for meter in WRITTEN_METERS)
_SPLITS: dict[str, Split] = {"train": "train", "validation": "validation", "test": "test"}
_COLUMNS = ("id", "style", "bpm", "beat_type", "time_signature", "audio_filename", "split")
_ID = re.compile(r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*")


def read_groove(folder: Path) -> Iterator[Clip]:
    """The beats that have audio, in the table's order: style, tempo and meter.

    Fills are left out: they last a bar, in which neither can be heard.
    """
    table = found(folder, "info.csv", "groove/info.csv")
    base = table.parent.relative_to(folder)
    for line, (name, style, tempo, kind, meter, audio, split) in columns(table, _COLUMNS):
        if kind not in ("beat", "fill"):
            raise bad_row(table, line, f"beat_type must be beat or fill, not {kind!r}")
        if kind == "fill" or not audio:
            continue
        _check(table, line, name, audio, split)
        labels = (
            Label("style", (_style(table, line, style),), STYLES),
            Label("tempo", (_tempo(table, line, tempo),)),
            Label("meter", (_meter(table, line, meter),), METERS),
        )
        clip_id = f"groove-{name.replace('/', '-')}"
        yield Clip(clip_id, (PurePosixPath(base.as_posix()) / audio).as_posix(), _SPLITS[split], labels)


def _check(table: Path, line: int, name: str, audio: str, split: str) -> None:
    if not _ID.fullmatch(name):
        raise bad_row(table, line, f"{name!r} is no id such as drummer1/session1/1")
    if PurePosixPath(audio).is_absolute() or ".." in PurePosixPath(audio).parts:
        raise bad_row(table, line, f"{audio!r} lies outside the folder")
    if split not in _SPLITS:
        raise bad_row(table, line, f"split must be train, validation or test, not {split!r}")


def _style(table: Path, line: int, written: str) -> str:
    """`rock` for `rock/halftime`: what comes after is the drummer's own."""
    primary = written.partition("/")[0]
    if primary not in _STYLES:
        raise bad_row(table, line, f"unknown style {written!r}{nearest(primary, list(_STYLES))}")
    return _STYLES[primary]


def _tempo(table: Path, line: int, written: str) -> str:
    if not (written.isascii() and written.isdecimal() and len(written) <= 3 and int(written)):
        raise bad_row(table, line, f"bpm must be whole beats a minute, not {written!r}")
    return str(int(written))


def _meter(table: Path, line: int, written: str) -> str:
    meter = written.replace("-", "/")
    if meter not in METERS:
        raise bad_row(table, line, f"unknown time_signature {written!r}")
    return meter


GROOVE = DataSet(
    name="groove",
    read=read_groove,
    licence="CC BY 4.0",
    hours=13.6,
    layout="groove/info.csv with groove/drummer1/session1/*.wav (groove-v1.0.0.zip), or what is in groove/ itself",
    url="https://magenta.tensorflow.org/datasets/groove",
    splits="official: the table's column split; fills, and performances without audio, left out",
)
