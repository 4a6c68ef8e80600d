"""GiantSteps key: two-minute previews of electronic dance music with their keys (Knees et al. 2015, Faraldo 2017)."""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.keys import KEYS, spelt_key
from data_pipelines.sources.data_set import Clip, DataSet, Label
from data_pipelines.sources.layout import bad_row, first_line, optional, rows
from mufun_jax.errors import ManifestError

_HEADER = ["ID", "MANUAL KEY", "C"]
_CERTAIN = "2"  # the annotator's confidence: 0, 1 or 2
# Both repositories are cloned, or unpacked from GitHub's archive.
_MTG = ("giantsteps-mtg-key-dataset", "giantsteps-mtg-key-dataset-master")
_KEY = ("giantsteps-key-dataset", "giantsteps-key-dataset-master")


def read_giantsteps_key(folder: Path) -> Iterator[Clip]:
    """The MTG set's certain keys for training and validation, then the GiantSteps set for the test."""
    mtg, key = optional(folder, *_MTG), optional(folder, *_KEY)
    if mtg is None and key is None:
        raise ManifestError(f"{folder}: holds neither {_MTG[0]} nor {_KEY[0]}; clone the two repositories there")
    if mtg is not None:
        yield from _mtg(mtg)
    if key is not None:
        yield from _test(key)


def _mtg(folder: Path) -> Iterator[Clip]:
    """Excerpts with one certain key; those in several keys, in none, or not quite in one are left out."""
    table = folder / "annotations" / "annotations.txt"
    clips = []
    for number, (line, cells) in enumerate(rows(table, "\t", quoted=False)):
        cells = [cell.strip() for cell in cells]
        if number == 0:
            if cells[: len(_HEADER)] != _HEADER:
                raise bad_row(table, line, f"must begin with the columns {', '.join(_HEADER)}, not {cells}")
            continue
        if len(cells) < len(_HEADER) or not cells[0].isdecimal() or cells[2] not in ("0", "1", _CERTAIN):
            raise bad_row(table, line, f"must be a number, a key and a confidence from 0 to 2, not {cells}")
        if cells[2] != _CERTAIN or "/" in cells[1]:
            continue
        key = spelt_key(cells[1])
        if key is None:
            raise bad_row(table, line, f"{cells[1]!r} is no key")
        clips.append((int(cells[0]), key))
    for track, key in sorted(clips):
        audio = f"{folder.name}/audio/{track}.LOFI.mp3"
        split = "validation" if track % 10 == 0 else "train"
        yield Clip(f"giantsteps_key-mtg-{track}", audio, split, (Label("key", (key,), KEYS),))


def _test(folder: Path) -> Iterator[Clip]:
    files = sorted((folder / "annotations" / "key").glob("*.key"))
    if not files:
        raise ManifestError(f"{folder / 'annotations' / 'key'}: holds no .key file; clone the repository again")
    for path in files:
        key = spelt_key(re.sub(r"\s+", " ", first_line(path)))
        if key is None:
            raise bad_row(path, 1, f"{first_line(path)!r} is no key")
        audio = f"{folder.name}/audio/{path.stem}.mp3"
        yield Clip(f"giantsteps_key-{path.stem}", audio, "test", (Label("key", (key,), KEYS),))


GIANTSTEPS_KEY = DataSet(
    name="giantsteps_key",
    read=read_giantsteps_key,
    licence="labels CC BY-SA 4.0; the audio is Beatport's previews, all rights reserved",
    hours=69.7,
    layout=(
        "the repositories giantsteps-mtg-key-dataset (annotations/annotations.txt) and giantsteps-key-dataset "
        "(annotations/key/*.key), one is enough, each with its audio/*.LOFI.mp3 downloaded by its script"
    ),
    url="https://github.com/GiantSteps/giantsteps-key-dataset",
    splits=(
        "the usual ones: the MTG set trains, the GiantSteps set (604 files) tests; ours: of the MTG set, only certain "
        "single keys, and validation is the tracks whose number ends in 0"
    ),
)
