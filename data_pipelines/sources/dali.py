"""DALI: 5,358 songs with their lyrics in time (Meseguer-Brocal, Cohen-Hadria and Peeters 2018), as two data sets.

`dali` has a clip a song: all of its lyrics, its language, its genres. `dali_lines` has the same songs in pieces of at
most 30 s, each of whole lines, and nothing but the words: what is trained on pure transcription needs examples whose
every answer is one, and short stages need answers that end with the audio they hear.

The annotations are gzipped pickles of the class DALI.Annotations.Annotations, which are read without running them, or
that class's export as JSON.
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.sources.data_set import Clip, DataSet, Label
from data_pipelines.sources.fold import split_by_hash
from data_pipelines.sources.plain_pickle import MOST_BYTES, Holder, read_plain_pickle
from mufun_jax.errors import ManifestError

PIECE_SECONDS = 30.0  # one window of the model
LONGEST_SONG = 390.0  # seconds; what the model hears of a song
LONGEST_LYRICS = 2_500  # characters, some 700 tokens: beside four minutes of audio a row has room for 1,024
LANGUAGES = (
    "Croatian",
    "Danish",
    "Dutch",
    "English",
    "Finnish",
    "French",
    "German",
    "Italian",
    "Norwegian",
    "Polish",
    "Portuguese",
    "Spanish",
    "Swedish",
)

_CLASSES = {("DALI.Annotations", "Annotations"), ("DALI.main", "Annotations")}
_FOLDERS = ("annotations", "DALI_v1.0", "annot_tismir", "DALI_v2.0/annot_tismir", "")
_LATEST = 1e6  # seconds
_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIXES = ("mp3", "wav", "flac", "ogg", "m4a", "opus", "webm")

Line = tuple[float, float, str]  # start and end in seconds, words


def read_dali(folder: Path) -> Iterator[Clip]:
    """A clip a song, by id: lyrics (unless they are too long for a row), language and genres."""
    for path in _annotation_files(folder):
        song = _song(path)
        lines, labels = _lines(path, song), []
        text = "\n".join(words for _, _, words in lines)
        if text and len(text) <= LONGEST_LYRICS and max(end for _, end, _ in lines) <= LONGEST_SONG:
            labels.append(Label("lyrics", (text,)))
        about = _part(path, _part(path, song, "info"), "metadata")
        language = str(about.get("language", "")).strip().capitalize()
        if language in LANGUAGES:  # else a word for "not found", or too rare to ask for
            labels.append(Label("language", (language,), LANGUAGES))
        genres = about.get("genres")
        named = tuple(g.strip() for g in genres if isinstance(g, str) and g.strip()) if isinstance(genres, list) else ()
        if named:
            labels.append(Label("genres", tuple(dict.fromkeys(named))))
        if labels:
            name = _name(path)
            yield Clip(f"dali-{name}", _audio(folder, name), _split(path, song), tuple(labels))


def read_dali_lines(folder: Path) -> Iterator[Clip]:
    """Pieces of the songs, by id and time, each of as many whole lines as 30 s hold."""
    for path in _annotation_files(folder):
        song, name = _song(path), _name(path)
        audio, split = _audio(folder, name), _split(path, song)
        for number, piece in enumerate(_pieces(_lines(path, song))):
            time = (piece[0][0], max(end for _, end, _ in piece))
            text = "\n".join(words for _, _, words in piece)
            yield Clip(f"dali_lines-{name}-{number}", audio, split, (Label("lyrics", (text,)),), time)


def _annotation_files(folder: Path) -> list[Path]:
    """One file a song, sorted by id; JSON before a pickle where both are there."""
    for base in _FOLDERS:
        files: dict[str, Path] = {}
        for pattern in ("*.gz", "*.json"):
            files |= {_name(path): path for path in (folder / base).glob(pattern) if _ID.fullmatch(_name(path))}
        if files:
            return [files[name] for name in sorted(files)]
    raise ManifestError(f"{folder}: no <id>.gz or <id>.json in it or in {', '.join(_FOLDERS[:-1])}; unpack DALI there")


def _name(path: Path) -> str:
    return path.name.partition(".")[0]


def _audio(folder: Path, name: str) -> str:
    for suffix in _SUFFIXES:
        if (folder / f"audio/{name}.{suffix}").is_file():
            return f"audio/{name}.{suffix}"
    return f"audio/{name}.mp3"


def _split(path: Path, song: dict[str, Any]):
    artist = _part(path, song, "info").get("artist")
    return split_by_hash(artist if isinstance(artist, str) and artist.strip() else _name(path), 5, 5)


def _song(path: Path) -> dict[str, Any]:
    """The attributes `info` and `annotations`, from either form."""
    if path.suffix == ".json":
        try:
            song = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{path}: not JSON: {error}; fetch it again") from None
    else:
        try:
            with gzip.open(path) as file:
                data = file.read(MOST_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise ManifestError(f"{path}: cannot be unpacked: {error}; fetch it again") from None
        held = read_plain_pickle(data, path, _CLASSES)
        song = held.attributes if isinstance(held, Holder) else held
    if not isinstance(song, dict):
        raise ManifestError(f"{path}: holds no song with info and annotations, but a {type(song).__name__}")
    return song


def _part(path: Path, song: dict[str, Any], name: str) -> dict[str, Any]:
    part = song.get(name)
    if not isinstance(part, dict):
        raise ManifestError(f"{path}: {name} is no dict but a {type(part).__name__}; fetch it again")
    return part


def _lines(path: Path, song: dict[str, Any]) -> list[Line]:
    """The lines that have words, in the order of their beginnings."""
    annotations = _part(path, song, "annotations")
    if annotations.get("type") != "horizontal":
        raise ManifestError(f"{path}: its annotations are not horizontal; call vertical2horizontal() of DALI's package")
    written = _part(path, annotations, "annot").get("lines")
    if not isinstance(written, list):
        raise ManifestError(f"{path}: annot has no list of lines; fetch it again")
    lines = []
    for number, line in enumerate(written, 1):
        text, time = (line.get("text"), line.get("time")) if isinstance(line, dict) else (None, None)
        if not isinstance(text, str) or not isinstance(time, list | tuple) or not _is_time(time):
            raise ManifestError(f"{path}, line {number} of the lyrics: has no text and time [start, end]")
        words = " ".join(text.split())
        if words:
            lines.append((round(float(time[0]), 3), round(float(time[1]), 3), words))
    return sorted(lines)


def _is_time(time: list[Any] | tuple[Any, ...]) -> bool:
    numbers = all(isinstance(t, int | float) and abs(t) < _LATEST for t in time)  # a NaN is not below it either
    return len(time) == 2 and numbers and time[0] <= time[1]


def _pieces(lines: list[Line]) -> list[list[Line]]:
    """Runs of lines of at most 30 s. What begins before the audio or is longer alone is in none, and ends a run."""
    pieces: list[list[Line]] = []
    piece: list[Line] = []
    for line in lines:
        start, end, _ = line
        if piece and end - piece[0][0] > PIECE_SECONDS:
            pieces.append(piece)
            piece = []
        if start < 0 or not 0 < end - start <= PIECE_SECONDS:
            pieces.append(piece)
            piece = []
        else:
            piece.append(line)
    return [one for one in (*pieces, piece) if one]


_LICENCE = "annotations CC BY-NC-SA 4.0; the audio, from YouTube, is not given out"
_URL = "https://github.com/gabolsgabs/DALI"
_SPLITS = "no official ones; ours, by a hash of the artist, about 90/5/5"
_LAYOUT = (
    "annotations/<id>.gz (or .json, or in DALI_v1.0/, annot_tismir/, or beside audio/) and audio/<id>.mp3 "
    "(or .wav, .flac, .ogg, .m4a, .opus, .webm)"
)
DALI = DataSet(
    name="dali",
    read=read_dali,
    licence=_LICENCE,
    hours=345.0,  # version 1.0; version 2.0 has 7,756 songs
    layout=_LAYOUT,
    url=_URL,
    splits=_SPLITS,
)
DALI_LINES = DataSet(
    name="dali_lines",
    read=read_dali_lines,
    licence=_LICENCE,
    hours=345.0,  # of the songs; their lines take about half of it
    layout=_LAYOUT,
    url=_URL,
    splits=_SPLITS,
)
