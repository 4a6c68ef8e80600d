"""A row of a benchmark's file: read alike from Parquet, JSON and CSV, and made a question or a bad row."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mufun_jax.evaluate.benchmark_question import LETTERS, BadRow, Benchmark, BenchmarkQuestion, Song
from mufun_jax.evaluate.choices import OPTIONS_PLACE

_LONGEST_TEXT = 100_000  # characters of a question or an option; a benchmark's have some hundred


class RowError(ValueError):
    """Why a row cannot be made a question. Not for users: it becomes a BadRow."""


@dataclass(frozen=True)
class Row:
    """One row. `fields` are its values without audio bytes, `song` the audio that stands in the file itself, if any.

    `id` is unique in the benchmark where its makers kept it so. `beside` is the folder of the file that the row is
    from, relative to the benchmark's.
    """

    set: str
    id: str
    fields: Mapping[str, Any]
    song: Song | None
    beside: str = "."

    def text(self, name: str) -> str:
        """A field that must be a text. Raises RowError where it is none, empty, or endless."""
        value = self.fields.get(name)
        if not isinstance(value, str) or not value.strip():
            raise RowError(f"{name} is {shown(value)}; it must be a text")
        return checked_text(value, name)


def shown(value: Any) -> str:
    """A value as a reason shows it: short."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def checked_text(value: str, name: str) -> str:
    """`value`, unless it is too long for a prompt or would be mistaken for the options' place in it."""
    if len(value) > _LONGEST_TEXT:
        raise RowError(f"{name} has {len(value)} characters; at most {_LONGEST_TEXT} are read")
    if OPTIONS_PLACE in value:
        raise RowError(f"{name} holds {OPTIONS_PLACE!r}, which stands for the options in prompts")
    return value


def read_segment(value: Any) -> tuple[float, float] | None:
    """Seconds from `[start, end]`, or None for all of the song: no value, an empty list or an empty text.

    A text is read as JSON. Raises RowError for what is not two ascending numbers from 0.
    """
    segment = value.strip() if isinstance(value, str) else value
    if isinstance(segment, str) and segment:
        try:
            segment = json.loads(segment)
        except (ValueError, RecursionError):
            raise RowError(f"the segment {shown(value)} is not [start, end] in seconds") from None
    if segment is None or (isinstance(segment, Sequence) and not len(segment)):
        return None
    if not isinstance(segment, Sequence) or isinstance(segment, str) or len(segment) != 2:
        raise RowError(f"the segment {shown(value)} is not [start, end] in seconds")
    for number in segment:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise RowError(f"the segment {shown(value)} is not two numbers")
    start, end = map(float, segment)
    if not 0 <= start < end:
        raise RowError(f"the segment {shown(value)} is not two ascending numbers from 0")
    return start, end


def letter_place(value: Any, options: int, name: str = "answer") -> int:
    """The place of a letter, `"B"`, `"b"`, `"B."` or `"(B)"`. Raises RowError for a letter without an option."""
    letter = value.strip().strip("().: ").upper() if isinstance(value, str) else ""
    if len(letter) != 1 or letter not in LETTERS[:options]:
        raise RowError(f"{name} is {shown(value)}; it must be a letter from A to {LETTERS[options - 1]}")
    return LETTERS.index(letter)


def collect(
    name: str,
    rows: Iterable[Row],
    to_question: Callable[[Row], BenchmarkQuestion],
    groups: Mapping[str, str] | None = None,
) -> Benchmark:
    """All rows, each as a question or as a bad row. `groups` defaults to a group of its own for each set.

    Where an id is there again, the later row is bad, under its id with `#2` behind it.
    """
    questions: list[BenchmarkQuestion] = []
    bad_rows: list[BadRow] = []
    times: dict[str, int] = {}
    sets: dict[str, str] = {}
    for row in rows:
        sets.setdefault(row.set, row.set)
        id_ = _unused(row.id, times)
        if id_ != row.id:
            bad_rows.append(BadRow(id_, row.set, f"the id {shown(row.id)} is there more than once"))
            continue
        try:
            questions.append(to_question(row))
        except RowError as error:
            bad_rows.append(BadRow(id_, row.set, str(error)))
    return Benchmark(name, tuple(questions), tuple(bad_rows), dict(sets if groups is None else groups))


def _unused(id_: str, times: dict[str, int]) -> str:
    """`id_`, or `id_#2` and so on where it is taken."""
    times[id_] = times.get(id_, 0) + 1
    return id_ if times[id_] == 1 else _unused(f"{id_}#{times[id_]}", times)


def of_sets(benchmark: Benchmark, sets: Sequence[str]) -> Benchmark:
    """The part of a benchmark that is in some of its sets."""
    return replace(
        benchmark,
        questions=tuple(question for question in benchmark.questions if question.set in sets),
        bad_rows=tuple(row for row in benchmark.bad_rows if row.set in sets),
        groups={name: group for name, group in benchmark.groups.items() if name in sets},
    )
