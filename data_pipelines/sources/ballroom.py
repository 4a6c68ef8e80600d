"""Ballroom: 698 excerpts of 30 s of ballroom dances (Gouyon et al. 2006), with the beats of Krebs et al. 2013."""

import hashlib
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from data_pipelines.sources.layout import bad_row, beats_a_minute, found, optional, rows
from mufun_jax.errors import ManifestError, nearest

# The folders of the audio, and what their dances are called here.
_DANCES = {
    "ChaChaCha": "cha cha cha",
    "Jive": "jive",
    "Quickstep": "quickstep",
    "Rumba-American": "rumba",
    "Rumba-International": "rumba",
    "Rumba-Misc": "rumba",
    "Samba": "samba",
    "Tango": "tango",
    "VienneseWaltz": "Viennese waltz",
    "Waltz": "waltz",
}
DANCES = tuple(dict.fromkeys(_DANCES.values()))
METERS = ("3/4", "4/4")

# Sturm's list (2014) of files that stand twice, four of them exactly; the other of each pair is kept. Of the pair
# Albums-Fire-08 and -09 neither is kept: it is the same audio, once called cha cha cha and once samba.
_REPLICAS = {
    "Albums-AnaBelen_Veneo-15",
    "Albums-Ballroom_Magic-18",
    "Albums-Chrisanne2-12",
    "Albums-Fire-08",
    "Albums-Fire-09",
    "Albums-Latin_Jam-13",
    "Albums-Latin_Jam-14",
    "Albums-Latin_Jam-15",
    "Albums-Latin_Jam2-13",
    "Albums-Latin_Jam2-14",
    "Albums-Latin_Jam2-15",
    "Media-103414",
    "Media-103415",
    "Media-104705",
}
_ANNOTATIONS = ("BallroomAnnotations", "BallroomAnnotations-master")
# The tempi come in an archive of their own, data2.tar.gz, which unpacks into this folder.
_TEMPI = ("BallroomAnnotations/ballroomGroundTruth", "ballroomGroundTruth", "BallroomAnnotations")


def read_ballroom(folder: Path) -> Iterator[Clip]:
    """Every excerpt but the known replicas, by name: its dance, and its tempo and meter where they are there."""
    audio, tempi = found(folder, "BallroomData"), optional(folder, *_TEMPI)
    beats = [folder / name for name in _ANNOTATIONS if (folder / name).is_dir()]
    if not beats and tempi is None:
        raise ManifestError(f"{folder}: holds no {_ANNOTATIONS[0]}; clone the annotations there")
    paths = sorted(audio.glob("*/*.wav"), key=lambda path: path.name)
    if not paths:
        raise ManifestError(f"{audio}: holds no <dance>/*.wav; unpack data1.tar.gz there")
    for path in paths:
        dance = path.parent.name
        if dance not in _DANCES:
            raise ManifestError(f"{path.parent}: no dance of this data set{nearest(dance, list(_DANCES))}")
        if path.stem in _REPLICAS:
            continue
        labels = [Label("dance", (_DANCES[dance],), DANCES), *_rhythm(path.stem, tempi, beats)]
        relative = f"BallroomData/{dance}/{path.name}"
        yield Clip(f"ballroom-{path.stem}", relative, split_of(path.stem), tuple(labels))


def split_of(name: str) -> Split:
    """A tenth of the albums tests and a tenth validates; the tracks of an album (`Albums-Fire-01`) stay together."""
    album = re.sub(r"^(Albums-.*)-\d+$", r"\1", name)
    fold = int.from_bytes(hashlib.sha256(album.encode()).digest()[:4]) % 10
    return "test" if fold == 0 else "validation" if fold == 1 else "train"


def _rhythm(name: str, tempi: Path | None, folders: list[Path]) -> list[Label]:
    """Tempo and meter. The tempo is the .bpm file's, and that of the beats where there is none."""
    labels = []
    found_beats = next((path for folder in folders if (path := folder / f"{name}.beats").is_file()), None)
    times, places = _beats(found_beats) if found_beats else ([], [])
    if tempi is not None and (tempo := tempi / f"{name}.bpm").is_file():
        labels.append(Label("tempo", (beats_a_minute(tempo),)))
    elif len(times) > 1:
        between = median(later - earlier for earlier, later in pairwise(times))
        labels.append(Label("tempo", (str(round(60 / between)),)))
    meter = f"{max(places, default=0)}/4"
    if meter in METERS:
        labels.append(Label("meter", (meter,), METERS))
    return labels


def _beats(path: Path) -> tuple[list[float], list[int]]:
    """Seconds of the beats, and each beat's place in its bar, from 1. A line is `9.43 3`, space or tab between."""
    times, places = [], []
    for line, cells in rows(path, " ", quoted=False):
        parts = " ".join(cells).split()
        if len(parts) != 2 or not _is_number(parts[0]) or not parts[1].isdecimal():
            raise bad_row(path, line, f"must be a time and a place in the bar, not {' '.join(parts)!r}")
        if times and float(parts[0]) <= times[-1]:
            raise bad_row(path, line, f"the beat at {parts[0]} s comes after one at {times[-1]} s")
        times.append(float(parts[0]))
        places.append(int(parts[1]))
    return times, places


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


BALLROOM = DataSet(
    name="ballroom",
    read=read_ballroom,
    licence="none given with the audio (previews of ballroomdancers.com) or the labels; for research only",
    hours=6.1,
    layout=(
        "BallroomData/<Dance>/*.wav (data1.tar.gz), BallroomAnnotations/*.beats and, for the annotated tempi, "
        "BallroomAnnotations/ballroomGroundTruth/*.bpm (data2.tar.gz)"
    ),
    url="https://github.com/CPJKU/BallroomAnnotations",
    splits="no official ones; ours, by album, about 80/10/10, without the replicas that Sturm lists",
)
