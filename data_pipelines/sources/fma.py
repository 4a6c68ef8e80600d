"""FMA: 106,574 tracks of the Free Music Archive (Defferrard et al. 2017), those that have one top genre."""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.sources.data_set import Clip, DataSet, Label, Split
from data_pipelines.sources.layout import bad_row, found, rows
from mufun_jax.errors import nearest

GENRES = (
    "Blues",
    "Classical",
    "Country",
    "Easy Listening",
    "Electronic",
    "Experimental",
    "Folk",
    "Hip-Hop",
    "Instrumental",
    "International",
    "Jazz",
    "Old-Time / Historic",
    "Pop",
    "Rock",
    "Soul-RnB",
    "Spoken",
)
# The audio of the first of these that is there is used. The subsets are nested: medium holds small.
_SUBSETS = {
    "fma_full": ("small", "medium", "large"),
    "fma_large": ("small", "medium", "large"),
    "fma_medium": ("small", "medium"),
    "fma_small": ("small",),
}
_SPLITS: dict[str, Split] = {"training": "train", "validation": "validation", "test": "test"}
_COLUMNS = (("set", "split"), ("set", "subset"), ("track", "genre_top"))


def read_fma(folder: Path) -> Iterator[Clip]:
    """The tracks of the largest subset whose audio is there, in the order of their numbers."""
    table = found(folder, "fma_metadata/tracks.csv", "tracks.csv")
    audio = found(folder, *_SUBSETS)
    tracks: dict[int, tuple[Split, str]] = {}
    places: list[int] = []
    heads: list[list[str]] = []
    for line, cells in rows(table, ","):
        if len(heads) < 3:  # two rows name the columns, and the third the index
            heads.append(cells)
            places = _places(table, line, heads) if len(heads) == 3 else []
            continue
        if len(cells) != len(heads[0]) or not cells[0].isdecimal():
            raise bad_row(table, line, f"must be a track's number and {len(heads[0]) - 1} cells, not {len(cells) - 1}")
        split, subset, genre = (cells[place] for place in places)
        if split not in _SPLITS or subset not in _SUBSETS["fma_full"] or genre not in ("", *GENRES):
            raise bad_row(table, line, f"unknown split, subset or genre in {(split, subset, genre)}")
        if genre and subset in _SUBSETS[audio.name]:
            tracks[int(cells[0])] = _SPLITS[split], genre
    if len(heads) < 3:
        raise bad_row(table, len(heads) + 1, "the file ends within its three header rows")
    for track, (split, genre) in sorted(tracks.items()):
        name = f"{track:06d}"
        path = f"{audio.name}/{name[:3]}/{name}.mp3"
        yield Clip(f"fma-{name}", path, split, (Label("genre", (genre,), GENRES),))


def _places(table: Path, line: int, heads: list[list[str]]) -> list[int]:
    """Where the columns stand that are read."""
    names = list(zip(heads[0], heads[1], strict=False))
    for column in _COLUMNS:
        if column not in names:
            written = [" ".join(name) for name in names]
            raise bad_row(table, line, f"no column {' '.join(column)!r} above{nearest(' '.join(column), written)}")
    return [names.index(column) for column in _COLUMNS]


FMA = DataSet(
    name="fma",
    read=read_fma,
    licence="labels CC BY 4.0; each track has the Creative Commons licence that its artist chose",
    hours=888.0,  # fma_large; fma_full, the same tracks whole, has 8,232
    layout="fma_metadata/tracks.csv and one of fma_full/, fma_large/, fma_medium/, fma_small/ with 000/000002.mp3",
    url="https://github.com/mdeff/fma",
    splits="official (80/10/10, no artist in two); tracks without a top genre, over half of fma_large, left out",
)
