"""The curriculum: stage after stage, each from the parameters of the one before, resumable anywhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines.loader import Batches, count_steps, load_batches, open_stage
from data_pipelines.prepared_set import PreparedSet
from data_pipelines.stage_data import StageData, write_data_report
from mufun_jax.batch import Batch
from mufun_jax.config import RunConfig, StageConfig, difference
from mufun_jax.errors import ConfigError
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.sharding.processes import check_same, check_shared, is_first
from mufun_jax.sharding.rules import sharding_context
from mufun_jax.text.tokenizer import Tokenizer, load_tokenizer
from mufun_jax.train.checkpoint import Checkpoints, Position
from mufun_jax.train.loop import NotFiniteError, StepMetrics, train_steps
from mufun_jax.train.metrics import MetricsLog, read_metrics
from mufun_jax.train.optimizer import learning_rate_schedule
from mufun_jax.train.state import TrainState, finish_stage, precise_and_in_use, split_params, start_stage
from mufun_jax.train.step import Metrics, compile_train_step, make_train_step
from mufun_jax.weights.hf_config import Origin, TrainedStage
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.model_folder import ModelFolder, load_params, open_model_folder, save_model
from mufun_jax.weights.params import Params, count_params, init_params
from mufun_jax.weights.safetensors_file import Advance
from mufun_jax.weights.written_folder import check_target

_SUMMARY_FRACTION = 0.05  # of a stage's steps, at either end, that its start and end losses are means of
OnStep = Callable[[str, int, int, StepMetrics], None]


@dataclass(frozen=True)
class StageSummary:
    """What one stage did. Losses are means over the first and last 5 % of its steps, in nats a target token."""

    name: str
    steps: int
    loss_start: float
    loss_end: float
    trainable: int
    seconds: float


def train_curriculum(
    run: RunConfig,
    workdir: Path,
    *,
    on_step: OnStep = lambda stage, step, steps, metrics: None,
    on_stage: Callable[[StageSummary], None] = lambda summary: None,
    on_load: Advance = lambda *_: None,
    on_measure: Callable[[str, int, int], None] = lambda stage, done, total: None,
    on_plan: Callable[[dict[str, int]], None] = lambda steps: None,
) -> Path:
    """Trains all stages of `run` in `workdir`, going on from its newest checkpoint if there is one.

    `on_step` is called with (stage, step, steps of the stage, metrics), `on_stage` after each stage, `on_load` with the
    bytes of the initial model that are loaded, and the bytes in all, `on_measure` with the stage whose data is measured
    and the records done and in all, `on_plan` with the steps of every stage, before the first.
    Returns the model folder, `workdir/checkpoint`.
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
    began_from = open_initial_model(run) if run.initial_model is not None else None
    checkpoints = Checkpoints(workdir, run.checkpoint)
    position = checkpoints.latest(run)
    data = Data(run, tokenizer, on_measure)
    steps = {name: data.steps(name) for name in run.curriculum}
    on_plan(steps)
    log = MetricsLog(workdir / "metrics.jsonl", position.global_step if position else 0)
    curriculum = Curriculum(run, mesh, data, steps, checkpoints, log, on_step, began_from, on_load)
    params = None
    try:
        for name in remaining_stages(run, position):
            check_same(data[name].digest, f"data for the stage {name}")
            if is_first():
                write_data_report(workdir / "data" / f"{name}.json", data[name])
            params = curriculum.run_stage(name, params, position)
            position = None
            if is_first():
                on_stage(summarize(run, workdir, name, params))
    finally:
        checkpoints.close()
        log.close()
    assert params is not None
    origin = trained_origin(run, began_from, steps)
    source = began_from.config.values if began_from else None
    save_model(workdir / "checkpoint", run.model, params, tokenizer, origin, source)
    return workdir / "checkpoint"


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


@dataclass
class Curriculum:
    """What all stages of a run share."""

    run: RunConfig
    mesh: Mesh
    data: "Data"
    steps: dict[str, int]  # of every stage
    checkpoints: Checkpoints
    log: MetricsLog
    on_step: OnStep
    began_from: ModelFolder | None = None
    on_load: Advance = lambda *_: None
    train_steps: dict[tuple[Any, ...], jax.stages.Wrapped] = field(default_factory=dict)

    def run_stage(self, name: str, params: Params | None, position: Position | None) -> Params:
        """One stage: from `params`, or from the checkpoint at `position`, which lies in it."""
        run, stage, steps = self.run, self.run.stages[name], self.steps[name]
        steps_before = sum(self.steps[earlier] for earlier in run.curriculum[: run.curriculum.index(name)])
        batches = self._batches(stage, name)
        if params is None:
            params = self._initial_params()
        _, frozen = split_params(params, stage.trained_parts)
        state = start_stage(run, stage, params, self.mesh, run.seed + run.curriculum.index(name))
        if position is not None:
            state, frozen = self.checkpoints.restore(position, (state, frozen))
            batches.set_state(position.data)
        del params
        frozen, in_use = precise_and_in_use(frozen, run.compute_dtype)
        with sharding_context(self.mesh):
            compiled = self._train_step(stage, state, in_use)

            def train_step(state: TrainState, batch: Batch, learning_rate: Any) -> tuple[TrainState, Metrics]:
                return compiled(state, in_use, batch, learning_rate)

            def save_due(step: int) -> bool:
                return step == steps or (steps_before + step) % run.checkpoint.every_steps == 0

            def save(step: int, state: TrainState) -> None:
                position = Position(name, step, steps_before + step, batches.get_state())
                self.checkpoints.save(run, position, (state, frozen))

            started = time.perf_counter()

            def on_step(step: int, metrics: StepMetrics) -> None:
                nonlocal started
                seconds, started = time.perf_counter() - started, time.perf_counter()
                place = {"stage": name, "step": step, "global_step": steps_before + step}
                self.log.write({**place, "seconds": seconds, **metrics})
                self.on_step(name, step, steps, metrics)

            first = position.step if position else 0
            try:
                state = train_steps(
                    state,
                    train_step,
                    batches,
                    LocalRows(self.mesh, stage.rows),
                    first=first,
                    steps=steps,
                    learning_rate=learning_rate_schedule(stage, steps),
                    on_step=on_step,
                    save_due=save_due,
                    save=save,
                )
            except NotFiniteError as error:
                raise NotFiniteError(f"stage {name}, {error}") from None
            finally:
                batches.close()
        return finish_stage(run, state, frozen)

    def _initial_params(self) -> Params:
        if self.began_from is None:
            return init_params(self.run.model, self.mesh, self.run.seed)
        return load_params(self.began_from, self.mesh, "float32", advance=self.on_load)

    def _train_step(self, stage: StageConfig, state: TrainState, frozen: Params) -> jax.stages.Wrapped:
        """The compiled step: one for all stages that take the same."""
        key = (stage.trained_parts, stage.adapted_parts, stage.remat, stage.accumulate)
        if key not in self.train_steps:
            step = make_train_step(self.run, stage, self.mesh.devices.flat[0].platform)
            self.train_steps[key] = compile_train_step(step, state, frozen, self.mesh)
        return self.train_steps[key]

    def _batches(self, stage: StageConfig, name: str) -> Batches:
        return load_batches(self.run, stage, self.data[name], LocalRows(self.mesh, stage.rows).numbers)


class Data:
    """The data of every stage, measured when it is first asked for. All sets are opened at once: what is missing is
    found before anything is trained."""

    def __init__(self, run: RunConfig, tokenizer: Tokenizer, on_measure: Callable[[str, int, int], None]):
        self._run, self._tokenizer, self._on_measure = run, tokenizer, on_measure
        self._measured: dict[str, StageData] = {}
        for name in {name: None for stage in run.curriculum for name in run.stages[stage].mixture}:
            PreparedSet(Path(run.data), name)

    def __getitem__(self, name: str) -> StageData:
        if name not in self._measured:
            run = self._run
            number = run.curriculum.index(name)
            seed = int(np.random.SeedSequence([run.seed, number]).generate_state(1)[0])
            self._measured[name] = open_stage(
                run, run.stages[name], self._tokenizer, seed, lambda *records: self._on_measure(name, *records)
            )
        return self._measured[name]

    def steps(self, name: str) -> int:
        """Steps of a stage: what its config says, or what its epochs take."""
        stage = self._run.stages[name]
        return stage.steps if stage.steps is not None else count_steps(stage, self[name])


def summarize(run: RunConfig, workdir: Path, name: str, params: Params) -> StageSummary:
    """A stage's summary, from its lines of the metrics file."""
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if line["stage"] == name]
    losses = [line["loss"] for line in lines]
    edge = max(1, round(len(losses) * _SUMMARY_FRACTION))
    return StageSummary(
        name=name,
        steps=len(lines),
        loss_start=float(np.mean(losses[:edge])),
        loss_end=float(np.mean(losses[-edge:])),
        trainable=count_params(split_params(params, run.stages[name].trained_parts)[0]),
        seconds=sum(line["seconds"] for line in lines),
    )
