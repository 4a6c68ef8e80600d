"""MagnaTagATune: 25,863 excerpts of 29 s, tagged by the players of a game (Law et al. 2009).

Players name what comes to mind: a tag that is missing is not always wrong, so some wrong options may be right.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from data_pipelines.sources.layout import bad_row, base_of, found, rows

# The first of each line stands for all of it.
_SYNONYMS = (
    ("beat", "beats"),
    ("chanting", "chant"),
    ("choir", "choral", "chorus"),
    ("classical", "clasical", "classic"),
    ("drums", "drum"),
    ("electronic", "electro", "electronica"),
    ("fast", "fast beat", "quick"),
    ("female vocals", "female vocal", "female voice", "female singer", "female singing", "woman singing"),
    ("female vocals", "female", "woman", "women", "girl"),
    ("flute", "flutes"),
    ("guitar", "guitars"),
    ("harpsichord", "harpsicord"),
    ("horn", "horns"),
    ("indian", "india"),
    ("jazz", "jazzy"),
    ("male vocals", "male vocal", "male voice", "male singer", "man singing", "male", "man", "men"),
    ("opera", "operatic"),
    ("orchestra", "orchestral"),
    ("space", "spacey"),
    ("strings", "string"),
    ("synth", "synthesizer"),
    ("violin", "violins"),
    ("vocals", "vocal", "voice", "voices", "singer", "singing"),
    ("weird", "strange"),
    ("no vocals", "no vocal", "no voice", "no voices", "no singer", "no singing", "instrumental"),
)
_MERGED = {word: line[0] for line in _SYNONYMS for word in line}
# What is not there is said of few of the excerpts that lack it; "lol" and "different" say nothing of the music.
_LEFT_OUT = re.compile(r"(no|not) (?!vocals$).*|lol|different")
_BASES = ("", "mp3", "mp3_all", "audio")


def read_magnatagatune(folder: Path) -> Iterator[Clip]:
    """The excerpts that have a tag, in the order of their paths."""
    table = found(folder, "annotations_final.csv")
    base = base_of(folder, _BASES, "[0-9a-f]/*.mp3")
    header: list[str] = []
    clips = []
    for line, cells in rows(table, "\t"):
        if not header:
            header = cells
            if header[0] != "clip_id" or header[-1] != "mp3_path":
                raise bad_row(table, line, "the columns must go from clip_id to mp3_path")
            continue
        marks, path = cells[1:-1], cells[-1]
        if len(cells) != len(header) or not cells[0].isdecimal() or not set(marks) <= {"0", "1"}:
            raise bad_row(table, line, f"must be a number, {len(header) - 2} cells of 0 or 1, and a path")
        if not re.fullmatch(r"[0-9a-f]/[^/\\]+\.mp3", path):
            raise bad_row(table, line, f"{path!r} is no path such as 0/name.mp3")
        tags = _tags(tag for tag, mark in zip(header[1:-1], marks, strict=True) if mark == "1")
        if tags:
            clips.append((path, cells[0], tags))
    pool = _tags(header[1:-1])
    for path, clip, tags in sorted(clips):
        yield Clip(f"magnatagatune-{clip}", f"{base}{path}", split_of(path), (Label("tags", tags, pool),))


def split_of(path: str) -> Split:
    """Folders 0 to b train, c validates, d to f test."""
    return "train" if path[0] < "c" else "validation" if path[0] == "c" else "test"


def _tags(written: Iterable[str]) -> tuple[str, ...]:
    """Synonyms merged, in the order of the alphabet."""
    return tuple(sorted({tag for word in written if not _LEFT_OUT.fullmatch(tag := _MERGED.get(word, word))}))


MAGNATAGATUNE = DataSet(
    name="magnatagatune",
    read=read_magnatagatune,
    licence="audio of Magnatune, CC BY-NC-SA 1.0; no licence given with the labels, for research only",
    hours=209.0,
    layout="annotations_final.csv and the three parts of mp3.zip joined and unpacked: 0/*.mp3 to f/*.mp3",
    url="https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset",
    splits="none official; the customary one by folder: 0 to b train, c validation, d to f test; untagged left out",
)
