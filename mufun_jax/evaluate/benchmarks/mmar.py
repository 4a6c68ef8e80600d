"""The music questions of MMAR.

Read is `MMAR-meta.json` (or `.jsonl`), of its repository, beside the audio that its `audio_path` names; `choices` are
texts, and `answer` is one of them (of four rows it is none, or two at once: they are bad rows). Only rows whose
`modality` is `music` are read; mixtures of music with speech and sound are left out. Sets are MMAR's categories, such
as `Signal Layer`. MMAR prescribes no prompt: it is MuCUE's here.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.benchmark_question import Benchmark, BenchmarkQuestion
from mufun_jax.evaluate.benchmarks.audio_file import find_song
from mufun_jax.evaluate.benchmarks.mucue import PROMPT
from mufun_jax.evaluate.benchmarks.record_file import record_files, records
from mufun_jax.evaluate.benchmarks.row import Row, answer_place, chosen_sets, collect, named, read_options

_FILES = ("MMAR-meta.json", "MMAR-meta.jsonl")
_FIELDS = ("id", "audio_path", "question", "choices", "answer", "modality", "category")


def read_mmar(folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """The music questions. Raises UserError where the folder holds no MMAR, or a set is not in it."""
    rows = [row for path in record_files(folder, _FILES, "MMAR") for row in _rows(path)]
    benchmark = collect("mmar", rows, lambda row: _question(row, folder), {row.set: "music" for row in rows})
    return chosen_sets(benchmark, sets)


def _rows(path: Path) -> Iterator[Row]:
    for number, (fields, _) in enumerate(records(path, "MMAR", _FIELDS)):
        if fields["modality"] == "music":
            yield Row(named(fields["category"], "no category"), named(fields["id"], f"row {number}"), fields, None)


def _question(row: Row, folder: Path) -> BenchmarkQuestion:
    options = read_options(row.fields["choices"], "choices")
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group="music",
        song=find_song(folder, row.fields["audio_path"]),
        prompt=f"{PROMPT}{row.text('question')} {OPTIONS_PLACE}",
        options=options,
        answer=answer_place(row.fields["answer"], options),
        source=row.fields,
    )
