"""The curriculum: stage after stage, each from the parameters of the one before, resumable anywhere."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import jax
import numpy as np

from data_pipelines.stage_data import write_data_report
from mufun_jax.config import RunConfig
from mufun_jax.config_file import difference, to_json
from mufun_jax.errors import ConfigError, StoppedRunError
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.sharding.processes import check_same, check_shared, is_first, wait_for_all
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.train.checkpoint import Checkpoints, DamagedCheckpointError, Position
from mufun_jax.train.events import EventLog, OnEvent
from mufun_jax.train.guard import BadStepError, Skipped, write_durably
from mufun_jax.train.journal import Journal, OnStep
from mufun_jax.train.lora import abstract_adapters
from mufun_jax.train.metrics import read_metrics
from mufun_jax.train.profiler import Profiler, Steps
from mufun_jax.train.run_data import RunData
from mufun_jax.train.stage_run import Session, StageRun
from mufun_jax.train.state import split_params
from mufun_jax.train.stop_request import StopRequest
from mufun_jax.train.watch import Watch
from mufun_jax.weights.hf_config import Origin, TrainedStage
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.model_folder import ModelFolder, load_params, open_model_folder, save_model
from mufun_jax.weights.params import Params, count_params, init_params
from mufun_jax.weights.safetensors_file import Advance
from mufun_jax.weights.written_folder import check_target

_SUMMARY_FRACTION = 0.05  # of a stage's steps, at either end, that its start and end losses are means of
_COMPILED = "compiled"  # folder of the workdir with compiled programs


@dataclass(frozen=True)
class StageSummary:
    """What one stage did. Losses are means over the first and last 5 % of its steps, in nats a target token."""

    name: str
    steps: int
    loss_start: float
    loss_end: float
    trainable: int
    seconds: float


@dataclass(frozen=True)
class Callbacks:
    """Who is told how a run is going. `on_load` and `on_measure` are called on every process, the others on process 0.

    `on_plan` with the steps of every stage, before the first; `on_step` with (stage, step, steps of the stage, its line
    of metrics.jsonl); `on_stage` after each stage; `on_event` with (event, message); `on_load` with the bytes of the
    initial model that are loaded, and the bytes in all; `on_measure` with the stage whose data is measured and the
    records done and in all.
    """

    on_plan: Callable[[dict[str, int]], None] = lambda steps: None
    on_step: OnStep = lambda stage, step, steps, line: None
    on_stage: Callable[[StageSummary], None] = lambda summary: None
    on_event: OnEvent = lambda event, message: None
    on_load: Advance = lambda *_: None
    on_measure: Callable[[str, int, int], None] = lambda stage, done, total: None


def train_curriculum(
    run: RunConfig, workdir: Path, callbacks: Callbacks = Callbacks(), *, profile: Steps | None = None
) -> Path:
    """Trains all stages of `run` in `workdir`, going on from its newest checkpoint if there is one.

    `profile`: these steps are profiled. Returns the model folder, `workdir/checkpoint`.

    Raises:
        StoppedRunError: the run was told to stop, and has saved what it had.
        BadStepError: a loss or gradient that cannot be right, where `run.guard` says to stop.
    """
    mesh = make_mesh(run.mesh)
    tokenizer = load_tokenizer(run.tokenizer)
    if tokenizer.size > run.model.decoder.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.size} tokens, model.decoder.vocab_size is {run.model.decoder.vocab_size}"
        )
    workdir.mkdir(parents=True, exist_ok=True)
    check_shared(workdir)
    if is_first():
        check_target(workdir / "checkpoint", overwrite=True)  # what could not be replaced is found before training
    keep_programs(workdir / _COMPILED, mesh.devices.flat[0].platform)
    began_from = open_initial_model(run) if run.initial_model is not None else None
    with ExitStack() as opened:
        events = opened.enter_context(closing(EventLog(workdir, callbacks.on_event)))
        watch = opened.enter_context(Watch(workdir, run.watch, on_stall=lambda said: events.write("stalled", said)))
        profiler = opened.enter_context(Profiler(workdir, profile, events.write))
        stop = opened.enter_context(StopRequest())
        with telling_the_end(events), Checkpoints(workdir, run.checkpoint, events.write) as checkpoints, watch.naming():
            position = checkpoints.latest(run)
            data = RunData(run, tokenizer, callbacks.on_measure)
            steps = {name: data.steps(name) for name in run.curriculum}
            skipped = Skipped(workdir / "skipped.json", run.guard.most_skipped)
            if is_first():
                callbacks.on_plan(steps)
                write_durably(workdir / "config.json", json.dumps(to_json(run), indent=1) + "\n")
                write_durably(workdir / "plan.json", json.dumps({"steps": steps}) + "\n")
            session = Session(run, mesh, data, steps, checkpoints, events, skipped, stop, watch, profiler)
            tell_start(session, position)
            params = run_stages(session, workdir, position, began_from, callbacks)
        origin = trained_origin(run, began_from, steps)
        source = began_from.config.values if began_from else None
        save_model(workdir / "checkpoint", run.model, params, tokenizer, origin, source)
        events.write("end", f"the model is in {workdir / 'checkpoint'}")
    return workdir / "checkpoint"


@contextmanager
def telling_the_end(events: EventLog) -> Iterator[None]:
    """An end before its time is an event."""
    try:
        yield
    except StoppedRunError as error:
        events.write("preempted", str(error))
        raise
    except Exception as error:
        events.write("failed", " ".join(str(error).split())[:1000])
        raise


def run_stages(
    session: Session, workdir: Path, position: Position | None, began_from: ModelFolder | None, callbacks: Callbacks
) -> Params:
    """The stages from `position` on; again from an earlier checkpoint where one is damaged or a step was bad."""
    while True:
        try:
            return _run_stages(session, workdir, position, began_from, callbacks)
        except DamagedCheckpointError:  # which was put aside, and told
            pass
        except BadStepError as bad:
            if session.run.guard.policy == "stop":
                raise
            session.checkpoints.finish()
            session.skipped.add(bad, write=is_first())
            session.events.write("rollback", f"{bad}; on from the checkpoint before, without it")
        position = session.checkpoints.latest(session.run)


def _run_stages(
    session: Session, workdir: Path, position: Position | None, began_from: ModelFolder | None, callbacks: Callbacks
) -> Params:
    run, done = session.run, position.global_step if position else 0
    session.events.reached = done
    journal = Journal(run, workdir, session.events, done, callbacks.on_step)
    wait_for_all("metrics are taken back to the checkpoint")
    session.checkpoints.plan(list(accumulate(session.steps.values())), journal.metrics.evaluation_losses)
    params = None if position else initial_params(session, began_from, callbacks.on_load)
    try:
        for name in remaining_stages(run, position):
            check_same(session.data[name].digest, f"data for the stage {name}")
            if is_first():
                write_data_report(workdir / "data" / f"{name}.json", session.data[name])
            session.events.write("stage", f"{name} begins", stage=name, steps=session.steps[name])
            params = StageRun(session, journal, name, position).train(params)
            position = None
            if is_first():
                callbacks.on_stage(summarize(run, workdir, name, params))
    finally:
        journal.close()
    assert params is not None
    return params


def initial_params(session: Session, began_from: ModelFolder | None, on_load: Advance) -> Params:
    """All parameters in float32, before the first stage."""
    session.watch.at("making the first parameters", slow=True)
    if began_from is None:
        return init_params(session.run.model, session.mesh, session.run.seed)
    return load_params(began_from, session.mesh, "float32", advance=on_load)


def keep_programs(folder: Path, platform: str) -> None:
    """Compiled programs are kept, so that a run that starts again need not compile. A cache set elsewhere stays."""
    if platform != "gpu":  # of use to GPUs only, and a part of every program's key: the folder could not be moved
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def tell_start(session: Session, position: Position | None) -> None:
    after = position.global_step if position else None
    session.events.reached = after or 0
    session.events.write(
        "start",
        f"goes on after step {after}" if position else "starts at the beginning",
        resumed_from=after,
        processes=jax.process_count(),
        devices=session.mesh.devices.size,
        device_kind=session.mesh.devices.flat[0].device_kind,
    )


def open_initial_model(run: RunConfig) -> ModelFolder:
    """The model that a run starts from. Raises ConfigError, with the key, where it has other sizes than the run."""
    assert run.initial_model is not None
    folder = open_model_folder(local_folder(run.initial_model))
    changed = difference(folder.config.model, replace(run.model, max_windows=folder.config.model.max_windows))
    if changed:
        raise ConfigError(f"initial_model {run.initial_model} is another model than the config's: {changed}")
    return folder


def trained_origin(run: RunConfig, began_from: ModelFolder | None, steps: dict[str, int]) -> Origin:
    """Where the model of a finished run is from: that of the model it began from, and the stages of the run."""
    before = began_from.config.origin if began_from else Origin()
    stages = ((name, run.stages[name]) for name in run.curriculum)
    trained = (TrainedStage(name, steps[name], stage.mixture, stage.trained_parts) for name, stage in stages)
    return Origin(before.base_models, (*before.stages, *trained))


def remaining_stages(run: RunConfig, position: Position | None) -> list[str]:
    """The stages from the one that a checkpoint was taken in, or all. A finished one is still opened, for its end."""
    return list(run.curriculum[run.curriculum.index(position.stage) :] if position else run.curriculum)


def summarize(run: RunConfig, workdir: Path, name: str, params: Params) -> StageSummary:
    """A stage's summary, from its lines of the metrics file. Batches that were passed over are no steps."""
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if line["stage"] == name and "loss" in line]
    losses = [line["loss"] for line in lines]
    edge = max(1, round(len(losses) * _SUMMARY_FRACTION))
    stage = run.stages[name]
    adapters = abstract_adapters(run.model, run.lora, stage.adapted_parts) if stage.adapted_parts else {}
    return StageSummary(
        name=name,
        steps=len(lines),
        loss_start=float(np.mean(losses[:edge])) if losses else math.nan,
        loss_end=float(np.mean(losses[-edge:])) if losses else math.nan,
        trainable=count_params(split_params(params, stage.trained_parts)[0]) + count_params(adapters),
        seconds=sum(line["seconds"] for line in lines),
    )
