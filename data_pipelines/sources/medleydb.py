"""MedleyDB: 196 songs as multitracks, with the instrument of every stem (Bittner et al. 2014, 2016)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from data_pipelines.sources.data_set import Clip, DataSet, Label
from data_pipelines.sources.fold import split_by_hash
from mufun_jax.errors import ManifestError

GENRES = (
    "Classical",
    "Fusion",
    "Jazz",
    "Musical Theatre",
    "Pop",
    "Rap",
    "Rock",
    "Singer/Songwriter",
    "World/Folk",
)
# What wrong options are drawn from: instruments that sound different and are no part of one another.
INSTRUMENTS = (
    "accordion",
    "acoustic guitar",
    "banjo",
    "bassoon",
    "cello",
    "clarinet",
    "clean electric guitar",
    "distorted electric guitar",
    "double bass",
    "drum set",
    "electric bass",
    "electric piano",
    "erhu",
    "flute",
    "french horn",
    "guzheng",
    "harp",
    "mandolin",
    "oboe",
    "piano",
    "pipa",
    "synthesizer",
    "tabla",
    "tenor saxophone",
    "trombone",
    "trumpet",
    "tuba",
    "vibraphone",
    "viola",
    "violin",
    "voice",
)
# Names of stems that are one instrument here: a section plays what its members play, and all singers are voices.
_SAME = {
    **dict.fromkeys(("male singer", "female singer", "vocalists", "choir", "male rapper", "female rapper"), "voice"),
    **dict.fromkeys(("male speaker", "female speaker", "male screamer", "female screamer"), "voice"),
    "violin section": "violin",
    "viola section": "viola",
    "cello section": "cello",
    "trumpet section": "trumpet",
    "trombone section": "trombone",
    "french horn section": "french horn",
    "flute section": "flute",
    "clarinet section": "clarinet",
}
_SINGERS = {
    "male singer": "male singer",
    "female singer": "female singer",
    "male rapper": "male rapper",
    "female rapper": "female rapper",
}
VOICES = (*_SINGERS, "no voice")
_NO_INSTRUMENTS = {"", "main system", "unlabeled", "fx/processed sound", "sampler"}
_FOLDERS = ("Audio", "V1", "V2")
_END = "_METADATA.yaml"
_MOST_BYTES = 1 << 20


def read_medleydb(folder: Path) -> Iterator[Clip]:
    """The mixes by name: genre, instruments, and whose voice is heard."""
    tracks = _tracks(folder)
    for name in sorted(tracks):
        base, path = tracks[name]
        track = _metadata(path)
        artist = track.get("artist")
        split = split_by_hash(artist if isinstance(artist, str) and artist.strip() else name.partition("_")[0], 10, 10)
        labels, genre = [], track.get("genre")
        if isinstance(genre, str) and genre.strip():
            labels.append(Label("genre", (genre.strip(),), GENRES))
        stems = _stems(path, track)
        played = tuple(dict.fromkeys(_SAME.get(stem, stem) for stem in stems))
        if played:
            labels.append(Label("instruments", played, INSTRUMENTS))
        if voices := _voices(track, stems):
            labels.append(Label("vocal", voices, VOICES))
        if labels:
            yield Clip(f"medleydb-{name}", f"{base}/{name}/{name}_MIX.wav", split, tuple(labels))


def _tracks(folder: Path) -> dict[str, tuple[str, Path]]:
    """By name, the folder that the track lies (or is expected) in, and its metadata."""
    tracks: dict[str, tuple[str, Path]] = {}
    for path in (folder / "Metadata").glob(f"*{_END}"):
        tracks[path.name.removesuffix(_END)] = (_FOLDERS[0], path)
    for base in reversed(_FOLDERS):
        for place in (folder / base).glob("*/"):
            beside = place / f"{place.name}{_END}"
            if beside.is_file():
                tracks[place.name] = (base, beside)
            elif place.name in tracks:
                tracks[place.name] = (base, tracks[place.name][1])
    if not tracks:
        raise ManifestError(f"{folder}: no Metadata/*{_END} and no Audio/<track>/<track>{_END}; unpack MedleyDB there")
    return tracks


def _metadata(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_BYTES:
        raise ManifestError(f"{path}: {path.stat().st_size} bytes, more than the {_MOST_BYTES} that are read")
    try:
        track = yaml.safe_load(path.read_bytes())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ManifestError(f"{path}, line {line}: not YAML: {error.problem}; fetch it again") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not YAML: {error}; fetch it again") from None
    if not isinstance(track, dict) or not isinstance(track.get("stems"), dict):
        raise ManifestError(f"{path}: holds no stems; fetch it again")
    return track


def _stems(path: Path, track: dict[str, Any]) -> list[str]:
    """The instruments of the stems, in their order; a stem may have several."""
    stems: list[str] = []
    for name, stem in track["stems"].items():
        written = stem.get("instrument") if isinstance(stem, dict) else None
        for instrument in written if isinstance(written, list) else [written]:
            if not isinstance(instrument, str):
                raise ManifestError(f"{path}, stem {str(name)[:40]}: has no instrument; fetch it again")
            if instrument.strip().lower() not in _NO_INSTRUMENTS:
                stems.append(instrument.strip().lower())
    return stems


def _voices(track: dict[str, Any], stems: list[str]) -> tuple[str, ...]:
    """Who sings or raps; `no voice` where the metadata says so and no stem is one; nothing where it is not certain."""
    voices = {stem for stem in stems if _SAME.get(stem) == "voice"}
    if not voices:
        # YAML reads a bare yes as True.
        return ("no voice",) if track.get("instrumental") in ("yes", True) else ()
    return tuple(voice for voice in _SINGERS if voice in voices) if voices <= set(_SINGERS) else ()


MEDLEYDB = DataSet(
    name="medleydb",
    read=read_medleydb,
    licence="CC BY-NC-SA 4.0",
    hours=7.3,  # the 122 songs of version 1; version 2.0 has 74 more
    layout=(
        "Audio/<track>/<track>_MIX.wav (or V1/, V2/) and <track>_METADATA.yaml, beside it or in Metadata/ "
        "(of github.com/marl/medleydb)"
    ),
    url="https://medleydb.weebly.com",
    splits="no official ones; ours, by a hash of the artist, about 80/10/10",
)
