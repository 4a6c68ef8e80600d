"""One stage of a run: its state made or restored, its steps taken, watched, logged and saved."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipelines.loader import Batches, load_batches
from mufun_jax.batch import Batch
from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.sharding.rules import sharding_context
from mufun_jax.train.checkpoint import Checkpoints, Position, digest_frozen
from mufun_jax.train.evaluation import Evaluation
from mufun_jax.train.events import EventLog
from mufun_jax.train.guard import Guard, Skipped
from mufun_jax.train.journal import Journal, StageClock
from mufun_jax.train.loop import StepMetrics, train_steps
from mufun_jax.train.metrics import read_metrics
from mufun_jax.train.optimizer import learning_rate_schedule
from mufun_jax.train.profiler import Profiler
from mufun_jax.train.run_data import RunData
from mufun_jax.train.state import (
    TrainState,
    abstract_saved,
    finish_stage,
    from_saved,
    precise_and_in_use,
    split_params,
    start_stage,
    to_save,
)
from mufun_jax.train.step import Metrics, compile_train_step, make_train_step
from mufun_jax.train.stop_request import StopRequest
from mufun_jax.train.watch import Watch
from mufun_jax.weights.params import Params


@dataclass
class Session:
    """What the stages of a run share, from a start of the command to its end."""

    run: RunConfig
    mesh: Mesh
    data: RunData
    steps: dict[str, int]  # of every stage
    checkpoints: Checkpoints
    events: EventLog
    skipped: Skipped
    stop: StopRequest
    watch: Watch
    profiler: Profiler
    programs: dict[tuple[Any, ...], jax.stages.Wrapped] = field(default_factory=dict)

    def steps_before(self, name: str) -> int:
        """Steps of all stages before one."""
        order = self.run.curriculum
        return sum(self.steps[earlier] for earlier in order[: order.index(name)])

    def compiled(self, stage: StageConfig, state: TrainState, frozen: Params) -> jax.stages.Wrapped:
        """The train step: one for all stages that take the same."""
        key = (stage.trained_parts, stage.adapted_parts, stage.remat, stage.accumulate)
        if key not in self.programs:
            step = make_train_step(self.run, stage, self.mesh.devices.flat[0].platform)
            self.programs[key] = compile_train_step(step, state, frozen, self.mesh)
        return self.programs[key]


class StageRun:
    """A stage from its start, with `params`, or from the checkpoint at `position`, which lies in it."""

    def __init__(self, session: Session, journal: Journal, name: str, position: Position | None):
        self._session, self._journal, self._name, self._position = session, journal, name, position
        self._stage, self._steps = session.run.stages[name], session.steps[name]
        self._before = session.steps_before(name)
        self._clock = StageClock(session.run, self._stage, list(session.mesh.devices.flat))
        lines = read_metrics(journal.metrics.path) if position else ()  # up to the checkpoint: the rest was taken back
        self._guard = Guard(session.run.guard, name, lines)
        self._skipped = session.skipped.of(name)
        self._last: dict[str, Any] = {}  # the line of the last step
        self._stopping = self._save_due = False

    def train(self, params: Params | None) -> Params:
        """Takes the steps; returns all parameters after them. Raises BadStepError, StoppedRunError."""
        session, run = self._session, self._session.run
        batches = self._open_batches()
        try:
            state, frozen = self._begin(params)
            del params
            self._frozen_digests = digest_frozen(frozen)
            self._frozen, self._in_use = precise_and_in_use(frozen, run.compute_dtype)
            self._batches = batches
            with sharding_context(session.mesh):
                self._program = session.compiled(self._stage, state, self._in_use)
                session.stop.stepping()
                state = train_steps(
                    state,
                    self._train_step,
                    batches,
                    LocalRows(session.mesh, self._stage.rows),
                    first=self._position.step if self._position else 0,
                    steps=self._steps,
                    skipped=self._skipped,
                    learning_rate=learning_rate_schedule(self._stage, self._steps),
                    on_place=self._on_place,
                    pause_due=self._pause_due,
                    on_step=self._on_step,
                    on_skip=self._on_skip,
                )
        finally:
            batches.close()
        session.profiler.stage_ends()
        session.watch.at(f"the end of {self._name}", slow=True)
        return finish_stage(run, state, self._frozen)

    def _begin(self, params: Params | None) -> tuple[TrainState, Params]:
        session, run = self._session, self._session.run
        if self._position is not None:
            session.watch.at(f"restoring step {self._position.global_step}", slow=True)
            like = abstract_saved(run, self._stage, session.mesh)
            saved = session.checkpoints.restore(self._position, like)
            return from_saved(saved, run.param_dtype)
        assert params is not None
        _, frozen = split_params(params, self._stage.trained_parts)
        return start_stage(run, self._stage, params, session.mesh, run.seed + run.curriculum.index(self._name)), frozen

    def _open_batches(self) -> Batches:
        session = self._session
        rows = LocalRows(session.mesh, self._stage.rows).numbers
        batches = load_batches(session.run, self._stage, session.data[self._name], rows)
        if self._position is not None:
            batches.set_state(self._position.data)
        return batches

    def _train_step(self, state: TrainState, batch: Batch, learning_rate: Any) -> tuple[TrainState, Metrics]:
        started = time.perf_counter()
        taken = self._program(state, self._in_use, batch, learning_rate)
        if not self._last:  # the first call returns when the program is compiled
            self._clock.aside("compile", time.perf_counter() - started)
        return taken

    def _on_place(self, step: int, place: str) -> None:
        self._session.watch.at(f"{self._name} {step}, {place}", slow=not self._last)
        if place == "waiting for the batch":
            self._session.profiler.step_begins(self._before + step)

    def _pause_due(self, step: int) -> bool:
        """Called once a step. An evaluation is saved too, so that the best can be kept."""
        session, global_step = self._session, self._before + step
        self._stopping = session.stop.reached(global_step)
        self._save_due = session.checkpoints.due(global_step) or self._evaluation_due(step) or step == self._steps
        return self._stopping or self._save_due

    def _on_step(self, step: int, metrics: StepMetrics, paused: TrainState | None) -> None:
        self._guard.check(step, metrics)
        line = self._clock.line(metrics)
        if paused is not None and self._evaluation_due(step):
            started = time.perf_counter()
            line["evaluation_loss"] = self._evaluation.loss(paused.trained, self._in_use)
            self._clock.aside("evaluation", time.perf_counter() - started)
        self._write(step, line)
        if paused is not None:
            self._pause(step, paused)

    def _on_skip(self, step: int, paused: TrainState | None) -> None:
        reason = self._skipped[step]
        self._session.events.write("skipped", f"{self._name}, step {step} is passed over: {reason}")
        self._write(step, {"skipped": reason})
        if paused is not None:
            self._pause(step, paused)

    def _write(self, step: int, line: dict[str, Any]) -> None:
        session, global_step = self._session, self._before + step
        self._last = {"stage": self._name, "step": step, "global_step": global_step, **line}
        self._journal.write(self._last, self._steps)
        session.events.reached = global_step
        session.checkpoints.seal_finished()

    def _pause(self, step: int, state: TrainState) -> None:
        """Saves, and stops where that was asked for."""
        session, global_step = self._session, self._before + step
        started = time.perf_counter()
        session.watch.at(f"saving step {global_step}", slow=True)
        self._journal.sync()
        losses = self._last.get("loss"), self._last.get("evaluation_loss")
        position = Position(self._name, step, global_step, self._batches.get_state(), *losses)
        session.checkpoints.save(session.run, position, to_save(state, self._frozen), self._frozen_digests)
        if self._stopping:
            session.checkpoints.finish()
            raise session.stop.error(f"step {step} of {self._name} is saved")
        self._clock.aside("save", time.perf_counter() - started)

    def _evaluation_due(self, step: int) -> bool:
        config = self._session.run.evaluation
        if config is None:
            return False
        return (self._before + step) % config.every_steps == 0 or step == self._steps

    @cached_property
    def _evaluation(self) -> Evaluation:
        session = self._session
        return Evaluation(session.run, self._stage, session.data.tokenizer, session.mesh)
