"""The tasks of CMI-Bench that choose one label from a list.

Read are its `data/*/CMI_*.jsonl`, below the folder of its repository, beside the audio that `audio_path` names relative
to that folder. CMI-Bench asks openly: its instruction lists the labels, and the answer is one of them as a text. Tasks
with just one right label from a list in the instruction are questions here: genre (GTZAN), key (GiantSteps), instrument
(NSynth), singing technique (VocalSet), and whether one dances to it (Lyra). Its other tasks (tagging, regression, pitch
as a number, beats, captions, lyrics, melody, structure) are none of choice, and are left out. Only the test split is
read. Sets are the files, groups the tasks. The prompt is the instruction.

Labels are compared without case, spaces, hyphens and underscores: the instruction has "hip-hop" for the label "hiphop".
Where the label is in no way in the list (NSynth's instruction lists other instruments than the labels), the row is bad.
The files are excerpts already: `audio_start` and `audio_end` from 0 on mean all of a file.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.benchmark_question import LETTERS, Benchmark, BenchmarkQuestion, OptionLayout
from mufun_jax.evaluate.benchmarks.audio_file import find_song
from mufun_jax.evaluate.benchmarks.record_file import record_files, records
from mufun_jax.evaluate.benchmarks.row import Row, RowError, chosen_sets, collect, read_segment, shown

_TASKS = (
    "genre_classification",
    "key_detection",
    "instrument_classification",
    "singing_technique_classification",
    "lyra_dance",
)
_FILES = ("data/*/CMI_*.jsonl", "CMI_*.jsonl")
_FIELDS = ("instruction", "output", "split", "task_type", "audio_path", "audio_start", "audio_end")
_LISTS = (
    re.compile(r"following list:\s*\w+:\s*(?P<list>[^\n.]+)"),
    re.compile(r"choose from\s+(?P<list>[^\n.]+)"),
    re.compile(r"Return only (?P<list>yes or no)"),
)


def read_cmi_bench(folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """The questions of choice. Raises UserError where the folder holds no CMI-Bench, or a set is not in it."""
    rows = [row for path in record_files(folder, _FILES, "CMI-Bench") for row in _rows(path)]
    groups = {row.set: _task(row.fields) for row in rows}
    return chosen_sets(collect("cmi-bench", rows, lambda row: _question(row, folder), groups), sets)


def _rows(path: Path) -> Iterator[Row]:
    name = path.stem.removeprefix("CMI_")
    for number, (fields, _) in enumerate(records(path, "CMI-Bench", _FIELDS)):
        if _task(fields) in _TASKS and fields["split"] in (["test"], "test"):
            # Most have an empty uuid.
            yield Row(name, f"{name}/{fields.get('uuid') or f'{number:05d}'}", fields, None)


def _task(fields: Mapping[str, Any]) -> str:
    kind = fields["task_type"]
    minor = kind.get("minor") if isinstance(kind, dict) else None
    return minor[0] if isinstance(minor, list) and len(minor) == 1 and isinstance(minor[0], str) else ""


def _question(row: Row, folder: Path) -> BenchmarkQuestion:
    instruction = row.text("instruction")
    found = next((found for pattern in _LISTS if (found := pattern.search(instruction))), None)
    if found is None:
        raise RowError(f"the instruction lists no labels: {shown(instruction)}")
    between = " or " if " or " in found["list"] else ", "
    options = tuple(found["list"].strip().split(between))
    if not 2 <= len(options) <= len(LETTERS):
        raise RowError(f"the instruction lists {len(options)} labels; from 2 to {len(LETTERS)} can be asked")
    answers = [place for place, option in enumerate(options) if _plain(option) == _plain(row.fields["output"])]
    if len(answers) != 1:
        raise RowError(f"output {shown(row.fields['output'])} is {len(answers)} of the labels {shown(list(options))}")
    names = row.fields["audio_path"]
    if not isinstance(names, list) or len(names) != 1:
        raise RowError(f"audio_path is {shown(names)}; it must be a list of one file")
    start, end = found.span("list")
    return BenchmarkQuestion(
        id=row.id,
        set=row.set,
        group=_task(row.fields),
        song=find_song(folder, names[0]),
        prompt=instruction[:start] + OPTIONS_PLACE + instruction[end:],
        options=options,
        answer=answers[0],
        segment=_segment(row.fields["audio_start"], row.fields["audio_end"]),
        source=row.fields,
        layout=OptionLayout("", "", between, letters=False),
        options_text=found["list"],
    )


def _plain(label: Any) -> str:
    return re.sub(r"[\s_-]", "", str(label)).casefold()


def _segment(start: Any, end: Any) -> tuple[float, float] | None:
    return None if start == 0 else read_segment([start, end])
