"""The music questions of MMAU.

Read are `mmau-test-mini.json`, of its repository, beside the audio that its `audio_id` names; `test_mini.parquet` of
the hub's MMAU-test-mini, whose columns are `context` (audio), `instruction`, `choices` ("(A) Man"), `answer` and
`other_attributes` (JSON); and the Parquet files of the lmms-eval copy, with `audio`, and `choices` in JSON. Rows of the
full test set have no answers, and are bad rows. Sets are MMAU's sub-categories; its questions on sound and speech are
left out. MMAU prescribes no prompt: it is MuCUE's here.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.benchmark_question import Benchmark, BenchmarkQuestion
from mufun_jax.evaluate.benchmarks.audio_file import find_song
from mufun_jax.evaluate.benchmarks.mucue import PROMPT
from mufun_jax.evaluate.benchmarks.parquet_file import parquet_columns
from mufun_jax.evaluate.benchmarks.record_file import record_files, records
from mufun_jax.evaluate.benchmarks.row import Row, answer_place, chosen_sets, collect, named, read_options, shown

_FILES = ("mmau-test-mini.json", "test_mini.parquet", "data/test_mini-*.parquet", "data/*.parquet")
_JSON_FIELDS = ("id", "audio_id", "question", "choices", "answer", "task", "sub-category")
_COPY_FIELDS = ("id", "audio", "question", "choices", "answer", "task", "sub-category")
_HUB_FIELDS = ("context", "instruction", "choices", "answer", "other_attributes")


def read_mmau(folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """The music questions. Raises UserError where the folder holds no MMAU, or a set is not in it."""
    rows = [row for path in record_files(folder, _FILES, "MMAU") for row in _rows(path)]
    benchmark = collect("mmau", rows, lambda row: _question(row, folder), {row.set: "music" for row in rows})
    return chosen_sets(benchmark, sets)


def _rows(path: Path) -> Iterator[Row]:
    for number, (fields, song) in enumerate(_music(path)):
        yield Row(named(fields["sub-category"], "no sub-category"), named(fields["id"], f"row {number}"), fields, song)


def _music(path: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """The records on music, all under the names that the JSON file has."""
    if path.suffix == ".json":
        found = records(path, "MMAU", _JSON_FIELDS)
    elif "context" in parquet_columns(path):
        found = ((_flat(fields, path), song) for fields, song in records(path, "MMAU's hub", _HUB_FIELDS, "context"))
    else:
        found = records(path, "MMAU", _COPY_FIELDS, "audio")
    yield from ((fields, song) for fields, song in found if fields.get("task") == "music")


def _flat(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    attributes = fields["other_attributes"]
    try:
        attributes = json.loads(attributes) if isinstance(attributes, str) else attributes
        named = {name: attributes[name] for name in ("id", "task", "sub-category")}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{path}: other_attributes is {shown(fields['other_attributes'])}; expected is JSON with id, task and "
            f"sub-category"
        ) from None
    rest = {name: value for name, value in fields.items() if name not in ("other_attributes", "instruction", "context")}
    return {**rest, **attributes, **named, "question": fields["instruction"], "audio_id": fields["context"]}


def _question(row: Row, folder: Path) -> BenchmarkQuestion:
    options = read_options(row.fields["choices"], "choices")
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group="music",
        song=row.song or find_song(folder, row.fields.get("audio_id")),
        prompt=f"{PROMPT}{row.text('question')} {OPTIONS_PLACE}",
        options=options,
        answer=answer_place(row.fields["answer"], options),
        source=row.fields,
    )
