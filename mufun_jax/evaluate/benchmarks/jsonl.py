"""Questions of anyone, as JSON lines.

A line is an object with these fields; others are kept for exporters:

    question   the text of the question
    options    a list of from 2 to 26 texts
    answer     the right option: its letter ("B"), its place from 0 (1), or its text
    audio      the name of a file, relative to the folder of the JSON lines, or a list of names
    segment    optional: [start, end] in seconds of the (first) file
    id         optional: unique among all lines; by default the file's name and the number of the line
    set        optional: what is scored together; by default the file's name
    group      optional: of the set; by default the set itself
    prompt     optional: the user's turn, with {options} where the lettered options stand; by default MuCUE's

An answer that is the letter of one option and the text of another is a bad row: give its place instead.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.benchmark_question import Benchmark, BenchmarkQuestion
from mufun_jax.evaluate.benchmarks.audio_file import find_song
from mufun_jax.evaluate.benchmarks.mucue import PROMPT
from mufun_jax.evaluate.benchmarks.record_file import record_files, records
from mufun_jax.evaluate.benchmarks.row import (
    Row,
    RowError,
    answer_place,
    chosen_sets,
    collect,
    read_options,
    read_segment,
    shown,
)

_FIELDS = ("question", "options", "answer", "audio")


def read_jsonl(path: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """The questions of a file of JSON lines, or of all that are in a folder.

    Raises UserError where there is none, or a file has other records, and for a set that is not in it.
    """
    if path.is_file():
        folder, files = path.parent, [path]
    elif path.is_dir():
        folder, files = path, record_files(path, ("*.jsonl",), "file of JSON lines")
    else:
        raise UserError(f"{path}: no such file or folder; give a file of JSON lines, or a folder with some")
    rows = [row for file in files for row in _rows(file)]
    groups: dict[str, str] = {}
    for row in rows:
        groups.setdefault(row.set, _named(row, "group", row.set))
    return chosen_sets(collect("jsonl", rows, lambda row: _question(row, folder, groups[row.set]), groups), sets)


def _rows(file: Path) -> Iterator[Row]:
    for number, (fields, _) in enumerate(records(file, "a file of questions", _FIELDS), 1):
        set_ = fields.get("set")
        id_ = fields.get("id")
        yield Row(
            set_ if isinstance(set_, str) and set_.strip() else file.stem,
            f"{file.stem}/{number}" if id_ is None else str(id_),
            fields,
            None,
        )


def _named(row: Row, name: str, default: str) -> str:
    value = row.fields.get(name)
    return value if isinstance(value, str) and value.strip() else default


def _question(row: Row, folder: Path, group: str) -> BenchmarkQuestion:
    fields = row.fields
    for name in ("set", "group"):
        if fields.get(name) is not None and _named(row, name, "") == "":
            raise RowError(f"{name} is {shown(fields[name])}; it must be a text")
    if _named(row, "group", group) != group:
        raise RowError(
            f"the set {shown(row.set)} is of the group {shown(group)} already, not of {shown(fields['group'])}"
        )
    options = read_options(fields["options"])
    names = fields["audio"] if isinstance(fields["audio"], list) else [fields["audio"]]
    if not names:
        raise RowError("audio is an empty list")
    first, *more = (find_song(folder, name) for name in names)
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group=group,
        song=first,
        prompt=_prompt(row),
        options=options,
        answer=_answer(fields["answer"], options),
        segment=read_segment(fields.get("segment")),
        source=fields,
        more_songs=tuple(more),
    )


def _prompt(row: Row) -> str:
    own, question = row.fields.get("prompt"), row.text("question")
    if own is None:
        return f"{PROMPT}{question} {OPTIONS_PLACE}"
    if not isinstance(own, str) or own.count(OPTIONS_PLACE) != 1:
        raise RowError(f"prompt is {shown(own)}; it must be a text with {OPTIONS_PLACE} in it, once")
    return own


def _answer(value: Any, options: Sequence[str]) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < len(options):
            return value
        raise RowError(f"the answer is {value}; as a number it must be the place of an option, 0 to {len(options) - 1}")
    return answer_place(value, options, letters=True)
