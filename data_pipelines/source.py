"""What `mufun prepare` is given: manifests, public data sets, and the score corpus, all as splits of examples."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.manifest import Example, Rejected, checked, read_entries
from data_pipelines.questions import Questioner
from data_pipelines.sources.data_set import Split
from data_pipelines.sources.registry import DATA_SETS, find_data_set
from mufun_jax.errors import ManifestError, nearest

Entries = Iterator[tuple[Split, str, Example | Rejected]]  # split, where it stands, what it is


@dataclass(frozen=True)
class Source:
    """A set of examples by name. `entries()` reads them; their audio lies below `root`."""

    name: str
    root: Path
    licence: str
    entries: Callable[[], Entries]


def find_source(text: str, seed: int) -> Source:
    """`NAME:FOLDER` of a public data set, or the path of a manifest.

    Raises:
        ManifestError: neither; with the nearest name of a data set.
    """
    name, separator, folder = text.partition(":")
    if text.endswith((".json", ".jsonl")):
        return manifest_source(Path(text))
    if not separator:
        hint = f"write {text}:FOLDER" if text in DATA_SETS else f"nor a data set{nearest(text, list(DATA_SETS))}"
        raise ManifestError(f"source {text!r}: no manifest (.json, .jsonl); {hint}; known: {', '.join(DATA_SETS)}")
    return data_set_source(name, Path(folder), seed)


def score_corpus_sources(folder: Path) -> list[Source]:
    """The lists of a score corpus in the folder it was rendered to: those to train on, and those held out."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return [
        manifest_source(folder / f"{name}.json", "train" if name.startswith("train") else "test", report["licence"])
        for name in report["entries"]
    ]


def manifest_source(path: Path, split: Split = "train", licence: str = "not stated") -> Source:
    """A manifest, as one split named after its file."""
    name = re.sub(r"\W+", "_", path.stem).strip("_").lower()
    if not name or not name[0].isalpha():
        raise ManifestError(f"{path}: a data set is named after its manifest; let its name begin with a letter")

    def entries() -> Entries:
        for where, example in read_entries(path):
            yield split, where, example

    return Source(name, path.parent.resolve(), licence, entries)


def data_set_source(name: str, folder: Path, seed: int) -> Source:
    """A public data set in the folder that it was unpacked in. Questions and options are drawn with `seed`."""
    data_set = find_data_set(name)
    if not folder.is_dir():
        raise ManifestError(f"{name}:{folder}: no such folder; unpack the data set there ({data_set.layout})")
    root = folder.resolve()

    def entries() -> Entries:
        questioner = Questioner(seed, data_set.name)
        for clip in data_set.read(folder):
            for entry in questioner.entries_of(clip):
                where = f"{name}:{folder}, {entry['id']}"
                yield clip.split, where, checked(entry, where, root)

    return Source(data_set.name, root, data_set.licence, entries)
