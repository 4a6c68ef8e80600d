"""SALAMI: 1,359 recordings whose sections two people marked (Smith et al. 2011)."""

import math
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.sources.data_set import Clip, DataSet, Label
from data_pipelines.sources.fold import split_by_hash
from data_pipelines.sources.layout import bad_row, optional, rows
from mufun_jax.errors import ManifestError, nearest

GENRES = ("classical", "jazz", "popular", "world")  # of the recordings from Codaich; others have none here
LONGEST_SONG = 390.0  # seconds; of a longer recording the first so many are a clip, with the sections that begin there

_ROOTS = ("", "salami-data-public", "salami-data-public-master", "salami-data-public-hierarchy-corrections")
_COLUMNS = ("SONG_ID", "CLASS", "SONG_WAS_DISCARDED_FLAG")
_EDGES = ("silence", "end")
_UNNAMED = "no_function"
_SUFFIXES = ("mp3", "wav", "flac", "ogg", "m4a")

Section = tuple[float, str]  # where it begins, in seconds; its name


def read_salami(folder: Path) -> Iterator[Clip]:
    """The recordings that have sections with names, by number."""
    root = _root(folder)
    songs: dict[int, tuple[str, bool]] = {}
    for number, genre, discarded in _songs(folder / root / "metadata/metadata.csv"):
        songs[number] = (genre, discarded)
    for number, (genre, discarded) in sorted(songs.items()):
        sections = [] if discarded else _best(folder / root / f"annotations/{number}/parsed")
        if len(sections) < 3:  # a beginning, another section, and the end
            continue
        (end, _), named = sections[-1], sections[:-1]
        heard = [section for section in named if section[0] < LONGEST_SONG]
        labels = [Label("structure", (structure(heard),))]
        if genre in GENRES:
            labels.append(Label("genre", (genre,), GENRES))
        time = (0.0, LONGEST_SONG) if end > LONGEST_SONG else None
        split = split_by_hash(str(number), 10, 10)
        yield Clip(f"salami-{number}", _audio(folder, number), split, tuple(labels), time)


def structure(sections: list[Section]) -> str:
    """Such as `0:00 intro, 0:12 verse, 1:03 other`: a section whose part in the song nobody named is `other`."""
    return ", ".join(f"{int(start) // 60}:{int(start) % 60:02d} {name}" for start, name in sections)


def _root(folder: Path) -> str:
    for root in _ROOTS:
        if (folder / root / "metadata/metadata.csv").is_file() and (folder / root / "annotations").is_dir():
            return root
    raise ManifestError(f"{folder}: holds no metadata/metadata.csv and annotations/; unpack salami-data-public there")


def _audio(folder: Path, number: int) -> str:
    found = optional(folder, *(f"audio/{number}.{suffix}" for suffix in _SUFFIXES))
    return f"audio/{found.name if found else f'{number}.mp3'}"


def _songs(table: Path) -> Iterator[tuple[int, str, bool]]:
    """Number, genre, and whether the makers discarded it."""
    lines = rows(table, ",")
    line, heads = next(lines, (1, []))
    for column in _COLUMNS:
        if column not in heads:
            raise bad_row(table, line, f"no column {column!r}{nearest(column, heads)}")
    number, genre, discarded = (heads.index(column) for column in _COLUMNS)
    for line, cells in lines:
        if len(cells) != len(heads):
            raise bad_row(table, line, f"{len(cells)} cells below {len(heads)} columns")
        if not (cells[number].isascii() and cells[number].isdecimal()):
            raise bad_row(table, line, f"SONG_ID must be a number, not {cells[number]!r}")
        yield int(cells[number]), cells[genre].strip().lower(), cells[discarded].strip().upper() == "TRUE"


def _best(parsed: Path) -> list[Section]:
    """The sections of the annotator who named more of them, the first where both did; the end stands last."""
    choices = [_sections(path) for n in (1, 2) if (path := parsed / f"textfile{n}_functions.txt").is_file()]
    named = [choice for choice in choices if any(name not in ("other", "end") for _, name in choice)]
    return min(named, key=lambda sections: _unnamed(sections), default=[])


def _unnamed(sections: list[Section]) -> float:
    return sum(name == "other" for _, name in sections) / len(sections)


def _sections(path: Path) -> list[Section]:
    """A line is `12.34<tab>Verse`. Silence at the edges is dropped; the end is where the last sound ends."""
    written: list[Section] = []
    for line, cells in rows(path, "\t", quoted=False):
        if len(cells) != 2 or not _is_time(cells[0]) or not cells[1].strip():
            raise bad_row(path, line, f"must be seconds and a section, not {' '.join(cells)!r}")
        time, name = float(cells[0]), cells[1].strip().lower()
        if written and time < written[-1][0]:
            raise bad_row(path, line, f"the section at {time} s comes after one at {written[-1][0]} s")
        written.append((time, "other" if name == _UNNAMED else name.replace("_", " ")))
    sounding = [place for place, (_, name) in enumerate(written) if name not in _EDGES]
    if not sounding or sounding[-1] + 1 == len(written):
        return []
    inner = written[sounding[0] : sounding[-1] + 1]
    # A section of no length says nothing that its successor does not.
    following = [*inner[1:], written[sounding[-1] + 1]]
    kept = [section for section, after in zip(inner, following, strict=True) if after[0] > section[0]]
    return [*kept, (following[-1][0], "end")]


def _is_time(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and float(text) >= 0
    except ValueError:
        return False


SALAMI = DataSet(
    name="salami",
    read=read_salami,
    licence="annotations CC0; the audio is not given out, except what the Internet Archive holds",
    hours=105.0,  # about; 1,359 recordings
    layout=(
        "metadata/metadata.csv, annotations/<id>/parsed/textfile1_functions.txt (in the folder or in "
        "salami-data-public/) and audio/<id>.mp3 (or .wav, .flac, .ogg, .m4a)"
    ),
    url="https://github.com/DDMAL/salami-data-public",
    splits="no official ones; ours, by a hash of the number, about 80/10/10",
)
