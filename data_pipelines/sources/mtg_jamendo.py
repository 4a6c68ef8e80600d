"""MTG-Jamendo: whole songs with the genres, instruments and moods that uploaders gave (Bogdanov et al. 2019).

Uploaders name what comes to mind: a tag that is missing is not always wrong, so some wrong options may be right.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from data_pipelines.sources.layout import bad_row, base_of, found, rows

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_TASKS = {"genre": "genres", "instrument": "instruments", "mood/theme": "mood"}
_TABLES = ("data/splits/split-0", "mtg-jamendo-dataset/data/splits/split-0")
# Where the download script was told to put the tracks; `.low.mp3` are the same tracks at a lower bit rate.
_BASES = (
    "raw_30s/audio",
    "audio",
    "",
    "autotagging_moodtheme/audio",
    "raw_30s/audio-low",
    "audio-low",
    "autotagging_moodtheme/audio-low",
    "mtg-jamendo-dataset",
)
# Tags are written without spaces; these are words run together.
_SPACED = {
    "acousticbassguitar": "acoustic bass guitar",
    "acousticguitar": "acoustic guitar",
    "alternativerock": "alternative rock",
    "classicalguitar": "classical guitar",
    "classicrock": "classic rock",
    "darkambient": "dark ambient",
    "deephouse": "deep house",
    "doublebass": "double bass",
    "drummachine": "drum machine",
    "drumnbass": "drum and bass",
    "easylistening": "easy listening",
    "electricguitar": "electric guitar",
    "electricpiano": "electric piano",
    "ethnicrock": "ethnic rock",
    "hardrock": "hard rock",
    "hiphop": "hip hop",
    "instrumentalpop": "instrumental pop",
    "instrumentalrock": "instrumental rock",
    "jazzfunk": "jazz funk",
    "jazzfusion": "jazz fusion",
    "newage": "new age",
    "newwave": "new wave",
    "pipeorgan": "pipe organ",
    "popfolk": "pop folk",
    "poprock": "pop rock",
    "postrock": "post rock",
    "punkrock": "punk rock",
    "rnb": "R&B",
    "rocknroll": "rock and roll",
    "singersongwriter": "singer-songwriter",
    "synthpop": "synth pop",
    "triphop": "trip hop",
    "worldfusion": "world fusion",
}


def read_mtg_jamendo(folder: Path) -> Iterator[Clip]:
    """The tracks of split 0, by split and number, with the tags of each kind."""
    tables = found(folder, *_TABLES)
    base = base_of(folder, _BASES, "[0-9][0-9]/*.mp3")
    tracks = {split: _tracks(tables / f"autotagging-{split}.tsv") for split in _SPLITS}
    pools: dict[str, set[str]] = {kind: set() for kind in _TASKS}
    for split in _SPLITS:
        for _, tags in tracks[split].values():
            for kind, words in tags.items():
                pools[kind].update(words)
    choices = {kind: tuple(sorted(words)) for kind, words in pools.items()}
    for split in _SPLITS:
        for track, (path, tags) in sorted(tracks[split].items()):
            labels = tuple(Label(_TASKS[kind], words, choices[kind]) for kind, words in tags.items())
            yield Clip(f"mtg_jamendo-{track}", _audio(folder, f"{base}{path}"), split, labels)


def _tracks(table: Path) -> dict[str, tuple[str, dict[str, tuple[str, ...]]]]:
    """Each track's path and, by kind, its tags in the order of the alphabet."""
    tracks = {}
    for number, (line, cells) in enumerate(rows(table, "\t", quoted=False)):
        if number == 0:
            if cells != _HEADER:
                raise bad_row(table, line, f"must be the columns {', '.join(_HEADER)}")
            continue
        path, tags = cells[3] if len(cells) > 5 else "", [tag.partition("---") for tag in cells[5:]]
        if not re.fullmatch(r"\d\d/\d+\.mp3", path) or not all(kind in _TASKS and word for kind, _, word in tags):
            raise bad_row(table, line, "must be a track with a path such as 00/7400.mp3 and tags such as genre---rock")
        words = {kind: sorted({_SPACED.get(word, word) for k, _, word in tags if k == kind}) for kind in _TASKS}
        tracks[cells[0]] = path, {kind: tuple(found_words) for kind, found_words in words.items() if found_words}
    return tracks


def _audio(folder: Path, path: str) -> str:
    """The track, or where only that is there the one of the lower bit rate."""
    low = f"{path.removesuffix('.mp3')}.low.mp3"
    return low if not (folder / path).exists() and (folder / low).exists() else path


MTG_JAMENDO = DataSet(
    name="mtg_jamendo",
    read=read_mtg_jamendo,
    licence="labels CC BY-NC-SA 4.0; each track has the Creative Commons licence that its artist chose",
    hours=3777.0,
    layout=(
        "the repository's data/splits/split-0/autotagging-{train,validation,test}.tsv, and its tracks as 00/7400.mp3 "
        "or 00/7400.low.mp3, in the folder itself, audio/ or raw_30s/audio/"
    ),
    url="https://github.com/MTG/mtg-jamendo-dataset",
    splits="official: split 0 of five, no artist in two parts",
)
