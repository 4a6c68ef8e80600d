"""A benchmark's run: read, asked batch by batch into a file that a killed run goes on with, and reported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mufun_jax.errors import UserError
from mufun_jax.evaluate.asking.asker import MAX_NEW_TOKENS, Asker
from mufun_jax.evaluate.asking.plan import ROWS, Asking, Batch, askings, batches_of, limited, plan
from mufun_jax.evaluate.benchmark_question import BadRow, Benchmark, BenchmarkQuestion
from mufun_jax.evaluate.benchmark_report.report import BenchmarkReport, make_report
from mufun_jax.evaluate.benchmarks.registry import read_benchmark
from mufun_jax.evaluate.digests import questions_digest
from mufun_jax.evaluate.result import CONDITIONS, Condition, Result
from mufun_jax.evaluate.results_file import Key, ResultsFile, RunHeader, key_of, make_header, read_folder, results_path

_SHOWN = 3  # of what is missing


@dataclass(frozen=True)
class RunOptions:
    """What a user chooses of a run. `limit` is in rows a set, `rows` of a batch."""

    benchmark: str
    sets: tuple[str, ...] | None = None
    conditions: tuple[Condition, ...] = CONDITIONS
    rotations: int = 1
    limit: int | None = None
    rows: int = ROWS
    host: int = 0
    hosts: int = 1

    def __post_init__(self) -> None:
        """Raises UserError for numbers that cannot be."""
        for name, least in (("rotations", 1), ("limit", 1), ("rows", 1), ("hosts", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} {value}: at least {least}")
        if not 0 <= self.host < self.hosts:
            raise UserError(f"host {self.host} of {self.hosts}: hosts are counted from 0 to {self.hosts - 1}")
        if "audio" not in self.conditions:
            raise UserError("the conditions are without 'audio': a score is that with the song, others stand beside it")


@dataclass(frozen=True)
class PlannedRun:
    """A benchmark, or the part of it that is asked, and what each host asks of it."""

    options: RunOptions
    benchmark: Benchmark
    bundles: Sequence[Sequence[Batch]]

    @property
    def rows(self) -> list[Asking]:
        return [asking for bundle in self.bundles for batch in bundle for asking in batch]

    @property
    def batches(self) -> list[Batch]:
        """What this host asks."""
        return batches_of(self.bundles, self.options.host, self.options.hosts)

    def header(
        self, *, model: str, model_digest: str, dtype: str, quantize: str | None, judge: str | None
    ) -> RunHeader:
        """What its results begin with; `judge` is the judge's digest."""
        options = self.options
        return make_header(
            benchmark=self.benchmark.name,
            model=model,
            model_digest=model_digest,
            questions_digest=self.digest,
            sets=options.sets,
            conditions=options.conditions,
            rotations=options.rotations,
            limit=options.limit,
            max_new_tokens=MAX_NEW_TOKENS,
            dtype=dtype,
            quantize=quantize,
            judge_digest=judge,
            host=options.host,
            hosts=options.hosts,
        )

    @property
    def digest(self) -> str:
        return questions_digest(self.benchmark.questions, self.benchmark.bad_rows)


def plan_run(options: RunOptions, folder: Path) -> PlannedRun:
    """Reads a benchmark from a folder. Raises UserError where it is not there, or cannot be asked so."""
    return plan_benchmark(options, read_benchmark(options.benchmark, folder, options.sets))


def plan_benchmark(options: RunOptions, read: Benchmark) -> PlannedRun:
    whole = _writable(read)
    benchmark = limited(whole, options.limit)
    return PlannedRun(
        options, benchmark, plan(askings(benchmark, whole, options.conditions, options.rotations), options.rows)
    )


def open_results(folder: Path, header: RunHeader) -> ResultsFile:
    """Begins this host's results, or goes on with them. Raises UserError where they are of another run."""
    return ResultsFile(results_path(folder, header.host, header.hosts), header)


def waiting(planned: PlannedRun, file: ResultsFile) -> list[Batch]:
    """The batches that are not on the disk, or not whole."""
    return [batch for batch in planned.batches if not {asking.key for asking in batch} <= file.done]


def ask_run(
    batches: Sequence[Batch],
    file: ResultsFile,
    asker: Asker,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> None:
    """Asks batches, and writes each when it is answered. `progress` gets rows done, in all, and a note on errors.

    Of a batch that a kill left in part all is asked again, and what was missing is written.
    """
    total, done, errors = sum(map(len, batches)), 0, 0
    progress(0, total, "")
    for batch in batches:
        results = asker.ask(batch)
        file.add([result for result in results if key_of(result) not in file.done])
        done += len(batch)
        errors += sum(result.error is not None for result in results)
        progress(done, total, f"{errors} with an error" if errors else "")


@dataclass(frozen=True)
class RunReport:
    """`complete` is whether every row was made a question and answered without an error."""

    report: BenchmarkReport
    results: tuple[Result, ...]
    complete: bool


def report_run(planned: PlannedRun, folder: Path, warnings: Sequence[str] = ()) -> RunReport:
    """Reports what is in a run's folder, of all hosts, and names what is missing.

    Raises UserError where the results are of other questions than the benchmark's.
    """
    header, results, absent = read_folder(folder)
    options = planned.options
    for name, here in (
        ("benchmark", planned.benchmark.name),
        ("sets", options.sets),
        ("limit", options.limit),
        ("conditions", options.conditions),
        ("rotations", options.rotations),
        ("questions_digest", planned.digest),
    ):
        if getattr(header, name) != here:
            raise UserError(
                f"{folder}: its results are of other {name} ({getattr(header, name)} there, {here} here); give the "
                f"options and the data that it was run with"
            )
    wanted = {asking.key: asking for asking in planned.rows}
    for result in results:
        asking = wanted.get(key_of(result))
        if asking is None or result.gold != asking.question.answer or result.option_order != asking.option_order:
            raise UserError(f"{folder}: the result of {result.id!r} is of no question of this run; run it anew")
    missing = _missing(wanted, results, absent, folder, header.hosts)
    report = make_report(
        results,
        planned.benchmark.bad_rows,
        benchmark=planned.benchmark.name,
        groups=planned.benchmark.groups,
        model=header.model,
        warnings=(*missing, *warnings),
    )
    failed = any(result.error is not None for result in results)
    return RunReport(report, results, not (missing or planned.benchmark.bad_rows or failed))


def _missing(
    wanted: Mapping[Key, Asking], results: Sequence[Result], absent: Sequence[int], folder: Path, hosts: int
) -> list[str]:
    there = {key_of(result) for result in results}
    lacking = [asking for key, asking in wanted.items() if key not in there]
    said = []
    if absent:
        names = ", ".join(results_path(folder, host, hosts).name for host in absent)
        said.append(f"of {hosts} hosts {len(absent)} have written no results: {names} is not in {folder}")
    if lacking:
        shown = ", ".join(f"{row.question.id} ({row.condition}, rotation {row.rotation})" for row in lacking[:_SHOWN])
        more = ", …" if len(lacking) > _SHOWN else ""
        said.append(
            f"the run is not finished: {len(lacking):,} of {len(wanted):,} rows have no result and are in no score: "
            f"{shown}{more}"
        )
    return said


def _writable(benchmark: Benchmark) -> Benchmark:
    """Questions with characters that no file can hold, halves of a pair, are bad rows."""
    bad = {question.id for question in benchmark.questions if not _is_text(question)}
    if not bad:
        return benchmark
    rows = tuple(
        BadRow(question.id.encode("ascii", "backslashreplace").decode(), question.set, "has half a character in it")
        for question in benchmark.questions
        if question.id in bad
    )
    asked = tuple(question for question in benchmark.questions if question.id not in bad)
    return replace(benchmark, questions=asked, bad_rows=(*benchmark.bad_rows, *rows))


def _is_text(question: BenchmarkQuestion) -> bool:
    texts = (question.id, question.set, question.group, question.song.key, question.prompt, *question.options)
    text = "".join((*texts, question.options_text or ""))
    return not any("\ud800" <= character <= "\udfff" for character in text)
