"""Questions with what became of them, as exporters want them, and the files that exporters write."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import LETTERS, BenchmarkQuestion
from mufun_jax.evaluate.result import Result

Prediction = Literal["choice", "reply"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
_FILE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Answered:
    """A question and its result with the song, options in the benchmark's own order.

    `prediction` says what scorers are given: the option that our rules read in the reply, nothing where they read none
    ("choice"), or the raw reply, for the scorer's own reading of it ("reply"). Nothing too where there is no reply.
    """

    question: BenchmarkQuestion
    result: Result
    prediction: Prediction

    def text(self, options: Sequence[str] | None = None) -> str:
        """The prediction, a choice being the text of the option; `options` are the scorer's texts if not ours."""
        if self.prediction == "reply":
            return self.result.reply or ""
        return "" if self.result.letter is None else (options or self.question.options)[self.result.letter]

    def letter(self) -> str:
        """The prediction, a choice being the letter under which the option was shown."""
        if self.prediction == "reply":
            return self.result.reply or ""
        return "" if self.result.letter is None else shown_letter(self.result, self.result.letter)


def shown_letter(result: Result, place: int) -> str:
    """The letter under which an option was shown."""
    return LETTERS[result.option_order.index(place)]


def answered(
    questions: Iterable[BenchmarkQuestion], results: Sequence[Result], prediction: Prediction
) -> list[Answered]:
    """Every question with its result.

    Raises UserError where one has none, or the results are of another version of it: a file with rows left out, or of
    two benchmarks, would give a score that means something else.
    """
    found = {result.id: result for result in results if result.condition == "audio" and result.rotation == 0}
    pairs = []
    for question in questions:
        if question.id not in found:
            raise UserError(f"question {question.id!r} has no result with its song; finish the run, then export it")
        result = found[question.id]
        if result.gold != question.answer or len(result.option_order) != len(question.options):
            raise UserError(
                f"question {question.id!r}: its result is of {len(result.option_order)} options with answer "
                f"{result.gold}, the benchmark has {len(question.options)} with answer {question.answer}; run it again"
            )
        pairs.append(Answered(question, result, prediction))
    if not pairs:
        raise UserError("there are no questions to export")
    return pairs


def source_row(question: BenchmarkQuestion) -> dict[str, Any]:
    """The benchmark's own row without audio in it, which no scorer reads: fields that hold bytes are left out."""
    return {name: value for name, value in question.source.items() if not _holds_bytes(value)}


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_bytes, value.values()))
    return isinstance(value, bytes | bytearray) or (isinstance(value, list) and any(map(_holds_bytes, value)))


def own_options(answer: Answered, field: str) -> Sequence[str]:
    """The options as the benchmark's row words them, "(A) disco" for one, or ours where it has no such list."""
    own = answer.question.source.get(field)
    count = len(answer.question.options)
    if isinstance(own, list) and len(own) == count and all(isinstance(text, str) for text in own):
        return own
    return answer.question.options


def by_set(pairs: Iterable[Answered]) -> dict[str, list[Answered]]:
    sets: dict[str, list[Answered]] = {}
    for pair in pairs:
        sets.setdefault(pair.question.set, []).append(pair)
    return sets


def write_list(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """A JSON list, written whole or not at all."""
    return _write(path, [_json(list(rows), path, indent=1)])


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """JSON lines, written whole or not at all."""
    return _write(path, (_json(row, path) for row in rows))


def file_name(name: str, what: str) -> str:
    """A set's or a model's name as a part of a file's name. Raises UserError where it cannot be, or leads elsewhere."""
    if not _FILE_NAME.fullmatch(name):
        raise UserError(f"{what} {name!r} cannot be a file's name; use letters, digits, '.', '_', '-' and '+'")
    return name


def _json(value: Any, path: Path, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False)
    except TypeError as error:
        raise UserError(f"{path}: a row of the benchmark cannot be written as JSON: {error}") from None


def _write(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".partial")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(_ended(lines))
    aside.rename(path)
    return path


def _ended(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line + "\n"
