"""MuChoMusic: questions on music from MusicCaps and the Song Describer Dataset.

Read is `muchomusic.csv`, as it is published. Its columns `music_knowledge` and `music_reasoning` are swapped: the first
holds dimensions of reasoning, such as mood, the second those of knowledge, such as harmony. What a dimension is follows
from its name here, and `source` has both lists right, as `knowledge` and `reasoning`, beside the columns as they are.
Sets are `knowledge`, `reasoning`, and `knowledge and reasoning`, after the dimensions of a question.

Audio lies where the benchmark's own scripts look for it, below the folder or its `data/`, as
`sdd/audio/00/415600.2min.mp3` or `musiccaps/audio/[YTID]-[START-END].wav`. The right option comes first in the CSV:
options are shuffled, always alike for a row, and `answer_orders` in `source` says how, as the benchmark's result files
do. The prompt is the benchmark's own.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.benchmark_question import Benchmark, BenchmarkQuestion, OptionLayout, Song
from mufun_jax.evaluate.benchmarks.audio_file import find_song
from mufun_jax.evaluate.benchmarks.record_file import record_files, records
from mufun_jax.evaluate.benchmarks.row import Row, RowError, chosen_sets, collect, read_options, shown, shuffled

KNOWLEDGE = ("melody", "harmony", "metre and rhythm", "instrumentation", "sound texture", "performance", "structure")
REASONING = (
    "mood and expression",
    "temporal relations between elements",
    "lyrics",
    "genre and style",
    "historical and cultural context",
    "functional context",
)
_FILES = ("muchomusic.csv", "data/muchomusic.csv")
_TEXTS = ("correct_answer", "distractor_1_answer", "distractor_2_answer", "distractor_3_answer")
_DIMENSIONS = ("music_knowledge", "music_reasoning")
_FIELDS = ("question", *_TEXTS, "dataset", "dataset_identifier", *_DIMENSIONS)
_LAYOUT = OptionLayout("(", ") ", " ")
_PLACES = (".", "data")


def read_muchomusic(folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """All questions. Raises UserError where the folder holds no MuChoMusic, or a set is not in it."""
    rows = [row for path in record_files(folder, _FILES, "MuChoMusic") for row in _rows(path)]
    return chosen_sets(collect("muchomusic", rows, lambda row: _question(row, folder)), sets)


def _rows(path: Path) -> Iterator[Row]:
    for number, (fields, _) in enumerate(records(path, "MuChoMusic", _FIELDS)):
        named = {name for column in _DIMENSIONS for name in _listed(fields[column])}
        knowledge = [name for name in KNOWLEDGE if name in named]
        reasoning = [name for name in REASONING if name in named]
        kinds = [kind for kind, names in (("knowledge", knowledge), ("reasoning", reasoning)) if names]
        fields = {**fields, "knowledge": knowledge, "reasoning": reasoning}
        yield Row(" and ".join(kinds) or "no dimension", f"{number:04d}", fields, None)


def _listed(cell: str) -> list[str]:
    """The names in a cell such as "['harmony', 'melody']", in small letters."""
    return [name.strip().lower() for name in re.findall(r"""["']([^"']+)["']""", cell)]


def _question(row: Row, folder: Path) -> BenchmarkQuestion:
    options, order = shuffled(read_options([row.text(name) for name in _TEXTS]), f"muchomusic {row.id}")
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group=row.set,
        song=_song(row.fields, folder),
        prompt=f"Question: {row.text('question')}\n Options: {OPTIONS_PLACE} \n The correct answer is: ",
        options=options,
        answer=order.index(0),
        source={**row.fields, "answer_orders": list(order)},
        layout=_LAYOUT,
    )


def _song(fields: Any, folder: Path) -> Song:
    name = str(fields["dataset_identifier"]).removesuffix(".json")
    if fields["dataset"] == "sdd":
        if not re.fullmatch(r"\d{1,12}", name):
            raise RowError(f"dataset_identifier is {shown(name)}; of the Song Describer Dataset it must be a number")
        return find_song(folder, f"sdd/audio/{int(name) % 100:02d}/{name}.2min.mp3", _PLACES)
    if fields["dataset"] != "musiccaps":
        raise RowError(f"dataset is {shown(fields['dataset'])}; it must be sdd or musiccaps")
    youtube = name.rpartition("_")[0]
    if not re.fullmatch(r"[\w-]{1,20}", youtube):
        raise RowError(f"dataset_identifier is {shown(name)}; of MusicCaps it must be YTID_NUMBER")
    for place in _PLACES:
        found = sorted((folder / place / "musiccaps" / "audio").glob(f"[[]{youtube}[]]-*.wav"))
        if len(found) == 1:
            return find_song(folder, found[0].relative_to(folder).as_posix())
        if found:
            raise RowError(f"{len(found)} files of {youtube} in {found[0].parent}; which is meant?")
    return find_song(folder, f"musiccaps/audio/{youtube}.wav", _PLACES)
