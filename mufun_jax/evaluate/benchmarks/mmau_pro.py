"""The multiple-choice questions of MMAU-Pro with music in them.

Read is `test.parquet` of the hub's MMAU-Pro, beside the audio files that its `audio_path` names, a list: some questions
are on several files. `choices` are texts, and `answer` is one of them. Sets are MMAU-Pro's categories with music:
`music`, `sound_music`, `music_speech`, and `sound_music_speech`. Its other categories are left out, also those of open
questions, of following instructions, and of several audios, which do not say whether they are music. MMAU-Pro
prescribes no prompt: it is MuCUE's here.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

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
    named,
    read_options,
    shown,
)

_FILES = ("test.parquet", "data/test-*.parquet", "test.json", "test.jsonl")
_FIELDS = ("id", "audio_path", "question", "choices", "answer", "category")
_SETS = ("music", "sound_music", "music_speech", "sound_music_speech")


def read_mmau_pro(folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """The questions with music. Raises UserError where the folder holds no MMAU-Pro, or a set is not in it."""
    rows = [row for path in record_files(folder, _FILES, "MMAU-Pro") for row in _rows(path)]
    there = {row.set for row in rows}
    benchmark = collect(
        "mmau-pro", rows, lambda row: _question(row, folder), {name: name for name in _SETS if name in there}
    )
    return chosen_sets(benchmark, sets)


def _rows(path: Path) -> Iterator[Row]:
    for number, (fields, _) in enumerate(records(path, "MMAU-Pro", _FIELDS)):
        if fields["category"] in _SETS:
            yield Row(fields["category"], named(fields["id"], f"row {number}"), fields, None)


def _question(row: Row, folder: Path) -> BenchmarkQuestion:
    options = read_options(row.fields["choices"], "choices")
    names = row.fields["audio_path"]
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list | tuple) or not names:
        raise RowError(f"audio_path is {shown(names)}; it must be the name of a file, or a list of them")
    first, *more = (find_song(folder, name) for name in names)
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group=row.set,
        song=first,
        prompt=f"{PROMPT}{row.text('question')} {OPTIONS_PLACE}",
        options=options,
        answer=answer_place(row.fields["answer"], options),
        source=row.fields,
        more_songs=tuple(more),
    )
