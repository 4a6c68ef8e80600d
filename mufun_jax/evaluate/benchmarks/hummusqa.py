"""HumMusQA: 320 questions written by people with musical training.

Read are the Parquet files of the hub's HumMusQA, `data/test-*.parquet`: `identifier`, `audio` (the excerpt itself),
`question`, `answer`, `distractor_1` to `distractor_3`, `main_category`. The right option comes first there: options are
shuffled, always alike for an identifier. Sets are the main categories. HumMusQA's own prompt was not found: it is
MuCUE's here.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.benchmark_question import Benchmark, BenchmarkQuestion
from mufun_jax.evaluate.benchmarks.audio_file import find_song
from mufun_jax.evaluate.benchmarks.mucue import PROMPT
from mufun_jax.evaluate.benchmarks.record_file import record_files, records
from mufun_jax.evaluate.benchmarks.row import Row, chosen_sets, collect, named, read_options, shuffled

_FILES = ("data/test-*.parquet", "test-*.parquet")
_TEXTS = ("answer", "distractor_1", "distractor_2", "distractor_3")
_FIELDS = ("identifier", "audio", "question", *_TEXTS, "main_category")


def read_hummusqa(folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """All questions. Raises UserError where the folder holds no HumMusQA, or a set is not in it."""
    rows = [row for path in record_files(folder, _FILES, "HumMusQA") for row in _rows(path)]
    return chosen_sets(collect("hummusqa", rows, lambda row: _question(row, folder)), sets)


def _rows(path: Path) -> Iterator[Row]:
    for number, (fields, song) in enumerate(records(path, "HumMusQA", _FIELDS, "audio")):
        category = named(fields["main_category"], "no category")
        yield Row(category, named(fields["identifier"], f"row {number}"), fields, song)


def _question(row: Row, folder: Path) -> BenchmarkQuestion:
    options, order = shuffled(read_options([row.text(name) for name in _TEXTS]), row.id)
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group=row.set,
        song=row.song or find_song(folder, row.fields["audio"]),
        prompt=f"{PROMPT}{row.text('question')} {OPTIONS_PLACE}",
        options=options,
        answer=order.index(0),
        source={**row.fields, "answer_orders": list(order)},
    )
