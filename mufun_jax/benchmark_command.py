"""`mufun evaluate`: a benchmark by its name, or a manifest of one's own questions."""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mufun_jax import commands
from mufun_jax.ask_command import DType, loaded_model
from mufun_jax.errors import UserError, nearest
from mufun_jax.progress import progress_bar

if TYPE_CHECKING:
    from mufun_jax.evaluate.benchmark_run import PlannedRun, RunReport
    from mufun_jax.evaluate.letters.judge import Judge
    from mufun_jax.evaluate.result import Result

_MANIFESTS = (".json", ".jsonl")
_FOR_BENCHMARKS = "Benchmarks"  # headings of --help
_FOR_HOSTS = "Several hosts"


def evaluate(
    benchmark: Annotated[
        str,
        typer.Option(
            help="mucue, mmau, mmau-pro, mmar, muchomusic, cmi-bench, hummusqa, or jsonl (questions of your own with "
            "options); or a manifest of questions, one an entry, each with its `task`."
        ),
    ],
    checkpoint: Annotated[
        str,
        typer.Option("--checkpoint", "--model", help="Model folder, ours or a released one, or a hub's owner/name."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of a benchmark's results and report; of a manifest, a file for its scores, as JSON."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Of a manifest: only this task. Repeatable.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a manifest: TASK=METRIC of lyrics, key, tempo, chords, segments, captions. Repeatable.",
        ),
    ] = None,
    dtype: Annotated[DType, typer.Option(help="What the model computes in.")] = "bfloat16",
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(help="The decoder's matrices as int8: half of it.", rich_help_panel=_FOR_BENCHMARKS),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that the benchmark was downloaded to.", rich_help_panel=_FOR_BENCHMARKS),
    ] = None,
    fetch: Annotated[
        bool,
        typer.Option("--fetch", help="Download it to --data first, by `datasets`.", rich_help_panel=_FOR_BENCHMARKS),
    ] = False,
    sets: Annotated[
        str | None,
        typer.Option(help="Only these sets, with commas: gtzan_key,nsyn_pitch.", rich_help_panel=_FOR_BENCHMARKS),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="At most so many rows a set.", min=1, rich_help_panel=_FOR_BENCHMARKS)
    ] = None,
    conditions: Annotated[
        str,
        typer.Option(
            help="What is heard: the question's song, and for comparison nothing, another's song, 30 s of silence.",
            rich_help_panel=_FOR_BENCHMARKS,
        ),
    ] = "audio,text_only,other_song,silence",
    rotations: Annotated[
        int,
        typer.Option(
            help="Ask each question with its options in so many orders, each one place further.",
            min=1,
            rich_help_panel=_FOR_BENCHMARKS,
        ),
    ] = 1,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A model that reads the letter out of each reply too, for the published convention.",
            rich_help_panel=_FOR_BENCHMARKS,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER_OUT", help="Compare with this run, question by question.", rich_help_panel=_FOR_BENCHMARKS
        ),
    ] = None,
    training: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST",
            help="Warn of songs that are in this training data too: a manifest, or a folder of `mufun prepare`.",
            rich_help_panel=_FOR_BENCHMARKS,
        ),
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            help="Write the answers for the benchmark's own scorer too: mmau, mmar, muchomusic, cmi_bench, lmms_eval.",
            rich_help_panel=_FOR_BENCHMARKS,
        ),
    ] = None,
    rows: Annotated[
        int, typer.Option(help="Questions at once; fewer take less memory.", min=1, rich_help_panel=_FOR_BENCHMARKS)
    ] = 32,
    report_only: Annotated[
        bool,
        typer.Option("--report-only", help="Ask nothing: report what is in --out.", rich_help_panel=_FOR_BENCHMARKS),
    ] = False,
    host: Annotated[int, typer.Option(help="Which host this is, from 0.", min=0, rich_help_panel=_FOR_HOSTS)] = 0,
    hosts: Annotated[int, typer.Option(help="How many share the work.", min=1, rich_help_panel=_FOR_HOSTS)] = 1,
) -> None:
    """Measure a model: on a benchmark, or on questions of your own.

    A benchmark's questions are asked as it words them, in three ways: a reply, out of which the letter is read by
    rules; the log-probability of each option; and a choice among the letters alone. Beside each accuracy stand what
    the model scores without the song, and the best single letter. OUT gets `results.jsonl` with every reply, and
    `report.html`, `report.md` and `report.json`. A killed run goes on when it is started again. Exit code 1: rows could
    not be asked, or are missing; the report names them, and they count as wrong.

    `mufun evaluate --benchmark mucue --data MuCUE --model MuFun-Instruct --out runs/mucue`

    `mufun evaluate --benchmark mucue --data MuCUE --model MuFun-Instruct --out runs/some --sets gtzan_key --limit 50`

    On several hosts, with a shared OUT: the same command on each with `--host 0 --hosts 4` and so on; then once with
    `--report-only`.

    On a manifest (`--benchmark questions.json`) it prints accuracy by task with its 95 % interval, beside what guessing
    without the song gives; with `--metric key=key` the task `key` is measured by mir_eval's weighted score, and so on.
    """
    from mufun_jax.evaluate.benchmark_run import RunOptions
    from mufun_jax.evaluate.benchmarks.registry import BENCHMARKS

    if benchmark not in BENCHMARKS:
        if Path(benchmark).suffix not in _MANIFESTS:
            raise UserError(
                f"--benchmark {benchmark}: no such benchmark{nearest(benchmark, list(BENCHMARKS))}; there are "
                f"{', '.join(BENCHMARKS)}; or give a manifest of questions (.json, .jsonl)"
            )
        given = {"--data": data, "--fetch": fetch, "--sets": sets, "--limit": limit, "--rotations": rotations > 1}
        given |= {"--judge": judge, "--compare": compare, "--training": training, "--export": export}
        given |= {"--quantize": quantize, "--report-only": report_only, "--hosts": hosts > 1}
        if wrong := [name for name, value in given.items() if value]:
            raise UserError(f"{', '.join(wrong)}: for a benchmark's name, and --benchmark {benchmark} is a manifest")
        commands.evaluate(Path(benchmark), checkpoint, out, task, dtype, metrics=metric or [])
        return
    if task or metric:
        raise UserError(f"--task and --metric go with a manifest; of {benchmark} choose --sets")
    if data is None or out is None:
        raise UserError(f"--benchmark {benchmark} needs --data, the folder it was downloaded to, and --out, a folder")
    options = RunOptions(
        benchmark=benchmark,
        sets=read_names(sets, "--sets"),
        conditions=_read_conditions(conditions),
        rotations=rotations,
        limit=limit,
        rows=rows,
        host=host,
        hosts=hosts,
    )
    run = _Run(options, data, out, checkpoint, dtype, quantize, judge)
    if not run.run(fetch=fetch, report_only=report_only, compare=compare, training=training, export=export):
        sys.exit(1)


class _Run:
    """One run of the command on a benchmark."""

    def __init__(
        self, options: Any, data: Path, out: Path, checkpoint: str, dtype: DType, quantize: Any, judge: str | None
    ):
        self._options, self._data, self._out = options, data, out
        self._checkpoint, self._quantize, self._judge = checkpoint, quantize, judge
        self._dtype: DType = dtype

    def run(
        self,
        *,
        fetch: bool,
        report_only: bool,
        compare: Path | None,
        training: Path | None,
        export: str | None,
    ) -> bool:
        """Asks and reports. False where a row could not be asked, or is missing."""
        from mufun_jax.evaluate.benchmark_report.report_folder import write_report
        from mufun_jax.evaluate.benchmark_report.table import report_tables
        from mufun_jax.evaluate.benchmark_run import plan_run, report_run
        from mufun_jax.evaluate.fetch import fetch as fetch_benchmark

        model = Path(self._checkpoint).name or self._checkpoint
        _check(self._out, export, model, compare)
        if fetch:
            fetch_benchmark(self._options.benchmark, self._data)
        planned = plan_run(self._options, self._data)
        if not report_only:
            whole = self._ask(planned, model)
            if self._options.hosts > 1:
                host, hosts = self._options.host, self._options.hosts
                commands.show(
                    [f"Host {host} of {hosts} is done. When all are: the same command once more with --report-only"]
                )
                return whole
        warnings = _training_warnings(planned, training) if training is not None else []
        reported = report_run(planned, self._out, warnings)
        written = write_report(self._out, reported.report, time.time())
        commands.show([report_tables(reported.report)])
        if compare is not None:
            self._compare(compare, reported.results)
        if export is not None:
            written += _exported(export, self._out, planned, reported, model)
        commands.show([f"The report is in {self._out}: {', '.join(path.name for path in written)}"])
        return reported.complete

    def _ask(self, planned: "PlannedRun", model: str) -> bool:
        """Asks what is not on the disk yet. False where a row of this host ended with an error."""
        from mufun_jax.evaluate.asking.asker import Asker
        from mufun_jax.evaluate.benchmark_run import ask_run, open_results, waiting
        from mufun_jax.evaluate.digests import code_digest
        from mufun_jax.evaluate.results_file import read_results

        digest = _digest(self._checkpoint)
        judge_digest = None if self._judge is None else _digest(self._judge)
        header = planned.header(
            model=model, model_digest=digest, dtype=self._dtype, quantize=self._quantize, judge=judge_digest
        )
        file = open_results(self._out, header)
        batches = waiting(planned, file)
        if batches:
            judging = nullcontext() if self._judge is None else loaded_model(self._judge, self._dtype, self._quantize)
            with judging as judge, loaded_model(self._checkpoint, self._dtype, self._quantize) as loaded:
                asker = Asker(loaded, digest, code_digest(), None if judge is None else _judge_of(judge))
                with progress_bar("Asking") as advance:
                    ask_run(batches, file, asker, advance)
        failed = any(result.error is not None for result in read_results(file.path).results)
        return not (failed or planned.benchmark.bad_rows)

    def _compare(self, other: Path, results: "Sequence[Result]") -> None:
        from mufun_jax.evaluate.benchmark_scores.compare import compare, comparison_table
        from mufun_jax.evaluate.results_file import read_folder

        _, first, _ = read_folder(other)
        comparison = compare(first, results)
        commands.show([comparison_table(comparison, other.name, self._out.name)])
        written = self._out / "comparison.json"
        written.write_text(json.dumps({"with": str(other), **asdict(comparison)}, indent=1) + "\n", encoding="utf-8")


def read_names(text: str | None, option: str) -> tuple[str, ...] | None:
    """Names with commas between them, each once. Raises UserError for none."""
    if text is None:
        return None
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names:
        raise UserError(f"{option} {text!r}: names nothing; write names with commas between them")
    return names


def _read_conditions(text: str) -> Any:
    from mufun_jax.evaluate.result import CONDITIONS

    names = read_names(text, "--conditions") or ()
    for name in names:
        if name not in CONDITIONS:
            raise UserError(
                f"--conditions {name}: is none{nearest(name, list(CONDITIONS))}; there are {', '.join(CONDITIONS)}"
            )
    return tuple(condition for condition in CONDITIONS if condition in names)


def _check(out: Path, export: str | None, model: str, compare: Path | None) -> None:
    """Raises UserError for what would only be found when all is asked."""
    from mufun_jax.evaluate.exporters.answered import file_name
    from mufun_jax.evaluate.exporters.registry import EXPORTERS
    from mufun_jax.evaluate.results_file import read_folder

    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; a benchmark's results and report are a folder")
    if export is not None:
        if export not in EXPORTERS:
            raise UserError(
                f"--export {export}: none{nearest(export, list(EXPORTERS))}; there are {', '.join(EXPORTERS)}"
            )
        file_name(model, "the model")
    if compare is not None:
        read_folder(compare)


def _digest(checkpoint: str) -> str:
    from mufun_jax.evaluate.digests import model_digest
    from mufun_jax.weights.hub import local_folder

    with progress_bar("Reading the model's digest", "bytes", stays=False) as advance:
        return model_digest(local_folder(checkpoint), advance)


def _judge_of(model: Any) -> "Judge":
    from mufun_jax.evaluate.letters.judge import ModelJudge
    from mufun_jax.text.conversation import AUDIO_PLACEHOLDER

    # A reply may hold anything, and a judge is given no songs.
    return ModelJudge(lambda text: model.chat(text.replace(AUDIO_PLACEHOLDER, "(audio)")))


def _training_warnings(planned: "PlannedRun", training: Path) -> list[str]:
    """Raises UserError where there is no training data."""
    from collections import Counter

    from data_pipelines.shard import VERSION
    from mufun_jax.evaluate.benchmark_report.training_overlap import (
        digest_songs,
        overlap_warnings,
        overlap_with_manifest,
        overlap_with_prepared,
    )

    asked = planned.benchmark.questions
    songs = digest_songs(song for question in asked for song in (question.song, *question.more_songs))
    if training.is_dir():
        names = sorted(path.name for path in training.iterdir() if (path / VERSION).is_dir())
        if not names:
            raise UserError(f"--training {training}: no set that mufun prepare has written here; or give a manifest")
        overlap = overlap_with_prepared(songs, training, names)
    else:
        overlap = overlap_with_manifest(songs, training)
    counts = Counter(key for q in asked for key in {song.key for song in (q.song, *q.more_songs)})
    return overlap_warnings(overlap, counts, str(training))


def _exported(export: str, out: Path, planned: "PlannedRun", reported: "RunReport", model: str) -> list[Path]:
    from mufun_jax.evaluate.exporters.registry import export_results

    return export_results(export, out / export, planned.benchmark.questions, reported.results, model=model)
