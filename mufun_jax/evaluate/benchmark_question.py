"""What every benchmark is read into: questions with options, and the rows that are none."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Song:
    """The audio of a question: a file, or bytes that are read when asked for.

    `key` is the same for all questions on one audio, and no path of this machine: the name inside the benchmark's
    folder, or the SHA-256 of the bytes.
    """

    key: str
    load: Callable[[], Path | bytes] = field(compare=False, repr=False)


@dataclass(frozen=True)
class OptionLayout:
    """How a benchmark lays out its options: what stands before and after each letter, and between two options.

    Without `letters` the options stand alone: the answer is a text.
    """

    before: str = ""
    after: str = ". "
    between: str = " \n"
    letters: bool = True


@dataclass(frozen=True)
class BenchmarkQuestion:
    """One multiple-choice question.

    `id` is unique in its benchmark. `prompt` is the user's turn as the benchmark words it, without `<audio>`, with
    `{options}` where the lettered options stand, so that their order can be rotated. `options` are texts without
    letters, `answer` is the place of the right one. `segment` is a part of the song in seconds. `source` is the row as
    the benchmark has it, for exporters.

    `more_songs` are the second and later audios of a question on several; they have no segments. `layout` is the
    benchmark's way of laying out options, and `options_text` its own text of them, kept so that the prompt in the
    benchmark's order is the benchmark's to the letter (`choices.prompt_of`).
    """

    id: str
    set: str
    group: str
    song: Song
    prompt: str
    options: tuple[str, ...]
    answer: int
    segment: tuple[float, float] | None = None
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    more_songs: tuple[Song, ...] = ()
    layout: OptionLayout = OptionLayout()
    options_text: str | None = None


@dataclass(frozen=True)
class BadRow:
    """A row that could not be made a question. It counts as a wrong answer of its set, and the run exits with 1."""

    id: str
    set: str
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as read from a user's folder. `groups` names the group of each set, in the order of the report."""

    name: str
    questions: tuple[BenchmarkQuestion, ...]
    bad_rows: tuple[BadRow, ...]
    groups: Mapping[str, str]
