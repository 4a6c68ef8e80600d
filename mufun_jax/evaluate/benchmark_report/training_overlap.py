"""Songs that a benchmark asks about and training data hold too: such questions may be answered from memory.

Two digests find them. That of a file's bytes finds copies of the file. That of its decoded 16 kHz samples, which
`mufun prepare` writes into the index of each set, finds the same audio under another name or in another lossless
container. Neither finds the song in another encoding, nor a part of it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from etils import epath

from data_pipelines.manifest import Rejected, read_entries
from data_pipelines.prepared_set import PreparedSet
from data_pipelines.record import content_hash
from data_pipelines.shard import VERSION, read_hashes, sha256_of
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.audio.windows import to_int16
from mufun_jax.errors import AudioError, ManifestError
from mufun_jax.evaluate.benchmark_question import Song

_LONGEST = 3600.0  # seconds of a file that are decoded, as in `mufun prepare`
_SHOWN = 5  # songs in the warning


@dataclass(frozen=True)
class AudioDigest:
    """SHA-256 of a file's bytes, and of its decoded samples; the latter is None where it cannot be decoded."""

    file: str
    samples: str | None


@dataclass(frozen=True)
class Overlap:
    """`shared` has the keys of the questions' songs, each with the training data it is in: a manifest's entries by id,
    or a prepared set by name. `unreadable` are songs and files that could be compared by their bytes at most."""

    shared: Mapping[str, tuple[str, ...]]
    unreadable: tuple[str, ...]


def digest_songs(songs: Iterable[Song]) -> dict[str, AudioDigest]:
    """The digests of songs by their keys; each key is loaded once. Raises OSError where a file is gone."""
    found: dict[str, AudioDigest] = {}
    for song in songs:
        if song.key not in found:
            found[song.key] = _digest(song.load(), song.key)
    return found


def overlap_with_manifest(songs: Mapping[str, AudioDigest], manifest: Path) -> Overlap:
    """The songs that are among a manifest's audio files, which are all read and decoded, each once.

    Raises ManifestError where the manifest or an entry of it is wrong.
    """
    entries: dict[Path, list[str]] = {}
    for _, example in read_entries(manifest):
        if isinstance(example, Rejected):
            raise ManifestError(str(example))
        for path in example.audio:
            entries.setdefault(path, []).append(example.id)
    keys = _keys_of(songs)
    shared: dict[str, dict[str, None]] = {}
    unreadable = [key for key, digest in songs.items() if digest.samples is None]
    for path, ids in entries.items():
        if not path.is_file():
            unreadable.append(str(path))
            continue
        digest = _digest(path, str(path))
        if digest.samples is None:
            unreadable.append(str(path))
        for key in {*keys.get(digest.file, ()), *keys.get(digest.samples or "", ())}:
            shared.setdefault(key, {}).update(dict.fromkeys(ids))
    return Overlap({key: tuple(shared[key]) for key in songs if key in shared}, tuple(unreadable))


def overlap_with_prepared(songs: Mapping[str, AudioDigest], folder: Path, names: Iterable[str]) -> Overlap:
    """The songs that are in sets that `mufun prepare` wrote to `folder`, by what their indices say: nothing is decoded.

    Raises ManifestError where a set is missing or damaged.
    """
    keys = _keys_of(songs)
    shared: dict[str, dict[str, None]] = {}
    for name in names:
        PreparedSet(folder, name)  # is there, and whole
        for index in sorted((folder / name / VERSION).glob(f"{name}-train.index-*.jsonl")):
            for samples in read_hashes(epath.Path(index)):
                for key in keys.get(samples, ()):
                    shared.setdefault(key, {})[name] = None
    unreadable = tuple(key for key, digest in songs.items() if digest.samples is None)
    return Overlap({key: tuple(shared[key]) for key in songs if key in shared}, unreadable)


def overlap_warnings(overlap: Overlap, questions: Mapping[str, int], where: str) -> list[str]:
    """What the report says of an overlap; `questions` is the number of questions on each song. Empty where none."""
    said = []
    if overlap.shared:
        names = ", ".join(list(overlap.shared)[:_SHOWN]) + (", …" if len(overlap.shared) > _SHOWN else "")
        asked = sum(questions[key] for key in overlap.shared)
        said.append(
            f"{len(overlap.shared)} songs, of {asked} questions, are in the training data {where} too and may be known "
            f"by heart: {names}"
        )
    if overlap.unreadable:
        names = ", ".join(overlap.unreadable[:_SHOWN]) + (", …" if len(overlap.unreadable) > _SHOWN else "")
        said.append(
            f"{len(overlap.unreadable)} audio files could not be decoded and were not compared with the training data "
            f"{where} by what is heard: {names}"
        )
    return said


def _digest(audio: Path | bytes, name: str) -> AudioDigest:
    file = hashlib.sha256(audio).hexdigest() if isinstance(audio, bytes) else sha256_of(audio)
    try:
        samples = load_waveform(audio, name=name, max_seconds=_LONGEST).samples
    except AudioError:  # is told as unreadable
        return AudioDigest(file, None)
    return AudioDigest(file, content_hash(to_int16(samples)))


def _keys_of(songs: Mapping[str, AudioDigest]) -> dict[str, list[str]]:
    """The songs' keys by either digest."""
    keys: dict[str, list[str]] = {}
    for key, digest in songs.items():
        for one in (digest.file, digest.samples):
            if one is not None:
                keys.setdefault(one, []).append(key)
    return keys
