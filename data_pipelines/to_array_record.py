"""The pipeline that writes shards: Apache Beam, with processes of this machine or any runner that Beam has.

    evaluation shards ── write ── content hashes ──┐
    training shards ───────────────────────────── write

No order among shards matters and each is written by one worker alone, so the number of workers changes nothing.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pvalue import AsIter
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from etils import epath
from pydantic import TypeAdapter

from data_pipelines.shard import PlannedShard, ShardOptions, forget_other, read_hashes, write_shard
from mufun_jax.errors import ManifestError, UserError, nearest

Advance = Callable[..., None]
_POLL_SECONDS = 0.5
_PLAN = TypeAdapter(PlannedShard)
_ERROR_LINE = re.compile(r"^(?:[\w.]*\.)?(\w*(?:Error|Exception)): (.*?)(?: \[while running [^\]]*\])?$", re.MULTILINE)


def write_shards(
    evaluation: Sequence[PlannedShard],
    training: Sequence[PlannedShard],
    options: ShardOptions,
    *,
    known: frozenset[str] = frozenset(),
    workers: int = 2,
    beam_options: Sequence[str] = (),
    progress: Advance = lambda done, total, note="": None,
) -> None:
    """Writes all shards that are not there yet.

    No audio of the evaluation shards, nor any whose content hash is in `known`, gets into a training shard.
    `beam_options` are Beam's own, each `name=value`, for instance `runner=DataflowRunner`; without a runner, `workers`
    processes of this machine do the work.

    Raises:
        ManifestError: with `options.strict`, at the first bad example; UserError: an option that Beam does not have.
    """
    for plan in (*evaluation, *training):
        forget_other(plan, options)
    plans = [_save(plan) for plan in (*evaluation, *training)]
    pipeline = _pipeline(workers, beam_options)
    first, rest = plans[: len(evaluation)], plans[len(evaluation) :]
    hashes = (
        pipeline
        | "evaluation shards" >> beam.Create(first)
        | "spread them" >> beam.Reshuffle()
        | "write them" >> beam.FlatMap(_write, options, known=())
    )
    _ = (
        pipeline
        | "training shards" >> beam.Create(rest)
        | "spread" >> beam.Reshuffle()
        | "write" >> beam.FlatMap(_write, options, known=known, written=AsIter(hashes))
        | "forget" >> beam.combiners.Count.Globally()
    )
    with _polled([*evaluation, *training], progress):
        try:
            pipeline.run().wait_until_finish()
        except Exception as error:  # of any worker, any runner
            raise _in_one_line(error, options.strict) from error
    for plan in plans:
        epath.Path(plan).unlink()


def _write(plan_file: str, options: ShardOptions, known: Iterable[str], written: Iterable[str] = ()) -> Iterator[str]:
    """Writes one shard; yields the content hashes of its audio."""
    plan = _PLAN.validate_json(epath.Path(plan_file).read_text())
    write_shard(plan, options, frozenset(known).union(written))
    yield from read_hashes(plan.file("index", ".jsonl"))


def _save(plan: PlannedShard) -> str:
    """Writes a plan where the workers find it: a pipeline of a million examples would be too large for a runner."""
    file = plan.file("plan", ".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_PLAN.dump_json(plan))
    return str(file)


def _pipeline(workers: int, beam_options: Sequence[str]) -> beam.Pipeline:
    options = _pipeline_options(workers, beam_options)
    try:
        return beam.Pipeline(_runner(workers, beam_options), options)
    except (ValueError, ImportError) as error:
        raise UserError(f"--beam {' '.join(beam_options)}: {str(error).splitlines()[0]}") from None


def _runner(workers: int, beam_options: Sequence[str]) -> FnApiRunner | None:
    """Beam's runner on this machine; None where the options name another. What its workers log is no news."""
    if any(option.lstrip("-").startswith("runner=") for option in beam_options):
        return None
    if workers == 1:
        return FnApiRunner()
    command = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main 2>{os.devnull}"
    return FnApiRunner(default_environment=SubprocessSDKEnvironment.from_command_string(command))  # pyright: ignore


def _in_one_line(error: Exception, strict: bool) -> UserError:
    """What went wrong in a pipeline, without Beam's words about it, which may be a worker's whole traceback."""
    text = f"{type(error).__name__}: {error}"
    found = _ERROR_LINE.findall(text)
    kind, said = found[-1] if found else ("", text.splitlines()[-1])
    if kind.endswith("ManifestError"):
        return ManifestError(said + " (--strict: it stops at the first)" * strict)
    return UserError(
        f"writing shards failed: {said[:1000]}; finished shards are kept: run it again (with fewer --workers, if "
        "memory was short)"
    )


def _pipeline_options(workers: int, beam_options: Sequence[str]) -> PipelineOptions:
    given = [f"--{option.lstrip('-')}" for option in beam_options]
    for option in given:
        if "=" not in option:
            raise UserError(f"--beam {option.lstrip('-')}: write it as name=value, for instance runner=FlinkRunner")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            options = PipelineOptions([f"--direct_num_workers={workers}", *given])
            known = list(options.get_all_options())
    except SystemExit:
        raise UserError(f"--beam {' '.join(beam_options)}: {said.getvalue().strip().splitlines()[-1]}") from None
    for option in beam_options:
        name = option.lstrip("-").partition("=")[0]
        if name not in known:
            raise UserError(f"--beam {option}: Beam has no option {name!r}{nearest(name, known)}")
    return options


@contextmanager
def _polled(plans: Sequence[PlannedShard], progress: Advance) -> Iterator[None]:
    """Calls `progress` with the bytes of audio files that are done, and the bytes in all, while shards are written."""
    sizes = [sum(record.file_bytes for record in plan.records) for plan in plans]
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(_POLL_SECONDS):
            done = sum(_done(plan, size) for plan, size in zip(plans, sizes, strict=True))
            progress(done, sum(sizes))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    progress(sum(sizes), sum(sizes))


def _done(plan: PlannedShard, size: int) -> int:
    try:
        return int(plan.progress_file.read_text() or 0)
    except FileNotFoundError:
        return size if plan.file("summary", ".json").exists() else 0
