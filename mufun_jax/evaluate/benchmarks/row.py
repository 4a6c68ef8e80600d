"""A row of a benchmark's file: read alike from Parquet, JSON and CSV, and made a question or a bad row."""

import json
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.benchmark_question import LETTERS, BadRow, Benchmark, BenchmarkQuestion, Song
from mufun_jax.evaluate.letters.mention import bare

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


def named(value: Any, otherwise: str) -> str:
    """A name from a field, or another where the field holds none."""
    return str(value) if isinstance(value, str | int) and str(value).strip() else otherwise


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


def read_options(value: Any, name: str = "options") -> tuple[str, ...]:
    """Texts from a list of them, or from a text that holds one in JSON; letters before all of them are taken away.

    Raises RowError where there are not at least two, and at most as many as letters.
    """
    options = value
    if isinstance(options, str):
        try:
            options = json.loads(options)
        except (ValueError, RecursionError):
            raise RowError(f"{name} is {shown(value)}; it must be a list of texts") from None
    if not isinstance(options, list | tuple) or not all(isinstance(option, str) for option in options):
        raise RowError(f"{name} is {shown(value)}; it must be a list of texts")
    if not 2 <= len(options) <= len(LETTERS):
        raise RowError(f"{name} has {len(options)} options; from 2 to {len(LETTERS)} can be asked")
    bared = [without_letter(option, letter) for option, letter in zip(options, LETTERS, strict=False)]
    texts = [text.strip() for text in (options if None in bared else bared)]  # pyright: ignore[reportOptionalMemberAccess]
    if not all(texts):
        raise RowError(f"{name} is {shown(value)}; an option is empty")
    return tuple(checked_text(text, name) for text in texts)


def without_letter(option: str, letter: str) -> str | None:
    """ "Man" of "(A) Man" or "A. Man", None where the option does not begin with its letter."""
    found = re.match(rf"\(?{letter}[.):]\s*(?=\S)", option)
    return option[found.end() :] if found else None


def answer_place(value: Any, options: Sequence[str], *, letters: bool = False) -> int:
    """The place of the option that has this text, or, with `letters`, that is this letter.

    Raises RowError where it is none, or where text and letter, or two options, may be meant.
    """
    if not isinstance(value, str) or not value.strip():
        raise RowError(f"the answer is {shown(value)}; it must be the text of an option")
    lettered = {
        place
        for place, letter in enumerate(LETTERS[: len(options)])
        if (without_letter(value, letter) or "") == options[place]
    }
    exact = {place for place, option in enumerate(options) if option == value.strip()} or lettered
    places = exact or {place for place, option in enumerate(options) if bare(option) == bare(value)}
    if letters and len(letter := value.strip().strip("().: ")) == 1 and letter.upper() in LETTERS[: len(options)]:
        places |= {LETTERS.index(letter.upper())}
    if len(places) != 1:
        meant = "none" if not places else f"{len(places)}"
        raise RowError(f"the answer {shown(value)} is {meant} of the options {shown(list(options))}")
    return places.pop()


def shuffled(options: Sequence[str], id_: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Options in an order that is always the same for an id, and the place that each had.

    For benchmarks that name the right option first: unshuffled, the answer would always be A.
    """
    order = list(range(len(options)))
    random.Random(id_).shuffle(order)
    return tuple(options[place] for place in order), tuple(order)


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


def chosen_sets(benchmark: Benchmark, sets: Sequence[str] | None) -> Benchmark:
    """The part of a benchmark that is in some of its sets, all of it for None. Raises UserError for what is no set."""
    if not benchmark.groups:
        raise UserError(f"no question of {benchmark.name} that can be asked here in the folder; is it the whole of it?")
    if sets is None:
        return benchmark
    for name in sets:
        if name not in benchmark.groups:
            raise UserError(
                f"no set {name!r} in {benchmark.name}{nearest(name, list(benchmark.groups))}; there are "
                f"{', '.join(map(repr, benchmark.groups))}"
            )
    return replace(
        benchmark,
        questions=tuple(question for question in benchmark.questions if question.set in sets),
        bad_rows=tuple(row for row in benchmark.bad_rows if row.set in sets),
        groups={name: group for name, group in benchmark.groups.items() if name in sets},
    )
