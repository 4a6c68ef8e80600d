"""MusicCaps: 5,521 clips of 10 s, described by musicians in sentences and tags (Agostinelli et al. 2023)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.sources.data_set import Clip, DataSet, Label
from data_pipelines.sources.layout import bad_row, columns, found

_COLUMNS = ("ytid", "aspect_list", "caption", "is_audioset_eval")
_FOLDERS = ("wav", "audio", "music_data")
_SUFFIXES = ("wav", "mp3", "flac", "ogg", "m4a")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_LONGEST_LIST = 10_000  # characters of a cell with aspects


def read_musiccaps(folder: Path) -> Iterator[Clip]:
    """The clips in the table's order: the caption, and the aspects as tags."""
    table = found(folder, "musiccaps-public.csv")
    audio = next((name for name in _FOLDERS if (folder / name).is_dir()), _FOLDERS[0])
    for line, (name, aspects, caption, is_test) in columns(table, _COLUMNS):
        if not _YOUTUBE_ID.fullmatch(name):
            raise bad_row(table, line, f"{name!r} is no id of YouTube")
        if is_test not in ("True", "False") or not caption:
            raise bad_row(table, line, f"needs a caption, and True or False in is_audioset_eval, not {is_test!r}")
        labels = [Label("caption", (caption,))]
        try:
            tags = aspects_of(aspects)
        except ValueError as error:
            raise bad_row(table, line, f"aspect_list {error}") from None
        if tags:
            labels.append(Label("tags", tags))
        split = "test" if is_test == "True" else "train"
        yield Clip(f"musiccaps-{name}", _audio(folder, audio, name), split, tuple(labels))


def aspects_of(cell: str) -> tuple[str, ...]:
    """The words of a cell such as `['pop', 'mellow piano melody']`, each once. Raises ValueError."""
    if len(cell) > _LONGEST_LIST:
        raise ValueError(f"is longer than {_LONGEST_LIST} characters")
    try:
        aspects = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise ValueError(f"is no list of words: {cell[:60]!r}") from None
    if not isinstance(aspects, list) or not all(isinstance(aspect, str) for aspect in aspects):
        raise ValueError(f"is no list of words: {cell[:60]!r}")
    return tuple(dict.fromkeys(aspect.strip() for aspect in aspects if aspect.strip()))


def _audio(folder: Path, base: str, name: str) -> str:
    for suffix in _SUFFIXES:
        if (folder / base / f"{name}.{suffix}").is_file():
            return f"{base}/{name}.{suffix}"
    return f"{base}/{name}.wav"


MUSICCAPS = DataSet(
    name="musiccaps",
    read=read_musiccaps,
    licence="captions CC BY-SA 4.0; the audio, from YouTube, is not given out",
    hours=15.3,
    layout=(
        "musiccaps-public.csv and wav/<ytid>.wav (or audio/, music_data/; or .mp3, .flac, .ogg, .m4a), "
        "each already cut to its 10 s"
    ),
    url="https://www.kaggle.com/datasets/googleai/musiccaps",
    splits="AudioSet's: the 2,858 clips of its evaluation set test, the other 2,663 train",
)
