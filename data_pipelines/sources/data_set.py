"""What every data set is turned into: clips of audio and what is known about them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Label:
    """One thing that is known about a clip.

    `task` chooses the questions (genre, key, tempo, …). `answers` holds all that is true: an open question is answered
    by all of them, a four-option question by one. `pool` holds what wrong options are drawn from; empty: the label is
    only asked for openly (captions, lyrics), or its wrong options follow from the answer (tempo).
    """

    task: str
    answers: tuple[str, ...]
    pool: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """One audio file of a data set, or the seconds `time` of it, with its labels."""

    id: str
    audio: str  # below the data set's folder, with forward slashes
    split: Split
    labels: tuple[Label, ...]
    time: tuple[float, float] | None = None


@dataclass(frozen=True)
class DataSet:
    """A public data set: how it is read, and what a user must know of it.

    `read(folder)` yields the clips of the folder as it is downloaded, in an order that depends on the folder's content
    alone. It raises ManifestError, with the file, where the layout is another.
    """

    name: str
    read: Callable[[Path], Iterator[Clip]]
    licence: str  # of the labels and of the audio, where they differ
    hours: float  # of audio, all splits
    layout: str  # one line: what must lie in the folder
    url: str
    splits: str  # one line: whose splits these are
