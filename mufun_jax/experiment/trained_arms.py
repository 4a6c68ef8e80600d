"""Arms that train: each by `mufun train`'s own curriculum, with each seed, and scored by `mufun evaluate`'s own run."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mufun_jax.config import RunConfig
from mufun_jax.config_file import to_json
from mufun_jax.errors import UserError
from mufun_jax.evaluate.run import evaluate
from mufun_jax.evaluate.tasks import Item
from mufun_jax.experiment.experiment import Options, Tell, asked_items
from mufun_jax.experiment.finished import Finished
from mufun_jax.experiment.whisper_start import whisper_digest, write_start
from mufun_jax.generate.chat import MuFun
from mufun_jax.train.curriculum import Callbacks, keep_programs, train_curriculum
from mufun_jax.train.guard import BadStepError
from mufun_jax.train.metrics import read_metrics
from mufun_jax.weights.params import abstract_params, count_params

_A_RUN = 100  # units of progress that a run counts, of which training takes
_TRAINING = 85  # these, and scoring the rest
_QUICK_STEPS = 2
SHARED = "shared stages"


@dataclass(frozen=True)
class ArmStart:
    """The model that arms go on from, and the run that trained it, as JSON."""

    checkpoint: Path
    setting: Mapping[str, Any]


@dataclass(frozen=True)
class ArmRun:
    """What one arm with one seed came to: its scores by task, the line of each step, and what stopped it, if anything.

    `scores` are the fields of a `TaskScore`; `steps` have "loss" in nats a target token, "gradient_norm" before
    clipping, "stage", and the step counted over all stages.
    """

    arm: str
    seed: int
    scores: Mapping[str, Mapping[str, Any]]
    steps: tuple[Mapping[str, Any], ...]
    parameters: int
    seconds: float
    stopped: str | None


def train_arms(
    workdir: Path,
    runs: Mapping[str, RunConfig],
    options: Options,
    tell: Tell,
    *,
    scored: bool = True,
    shared: tuple[str, ...] = (),
) -> list[ArmRun]:
    """Trains every arm with every seed that is not yet done in `workdir`, and scores it on the benchmark if `scored`.

    With one seed all arms see the same examples in the same order as far as their stages are the same. `shared` are
    stages that every arm begins with, the same in all: they are trained once for each seed, and arms go on from there;
    of an arm's steps only the others are then its own. A step that cannot be right ends its arm, not the others.
    Raises UserError where there is nothing to score models on.
    """
    items = asked_items(options) if scored else {}
    keep_programs(workdir / "compiled", jax.devices()[0].platform)  # one place for all arms
    trained = {arm: replace(run, curriculum=run.curriculum[len(shared) :]) for arm, run in runs.items()}
    before = replace(next(iter(runs.values())), curriculum=shared) if shared else None
    total, done, found = _A_RUN * (len(runs) + bool(shared)) * len(options.seeds), 0, []

    def perform(arm: str, run: RunConfig, begin: ArmStart | None, items: dict[str, list[Item]]) -> ArmRun:
        nonlocal done
        said = f"{arm}, seed {run.seed}"
        setting = _setting(run, options, bool(items)) | ({"shared": begin.setting} if begin else {})
        finished = Finished(workdir, arm, run.seed, setting)
        measured = finished.read()
        if measured is None:
            if begin is not None:
                run = replace(run, initial_model=str(begin.checkpoint))
            elif options.whisper is not None:
                tell(done, total, f"{said}: the start")
                run = write_start(run, options.whisper, finished.folder / "start")
            advance = lambda units: tell(done + units, total, said)  # noqa: E731
            measured = finished.write(_perform(run, finished.folder / "run", items, advance))
        done += _A_RUN
        tell(done, total, said)
        steps = tuple(measured.pop("steps"))
        return ArmRun(arm=arm, seed=run.seed, steps=steps, **measured)

    for seed in options.seeds:
        begin = None
        if before is not None:
            begun = perform(SHARED, replace(before, seed=seed), None, {})
            if begun.stopped is not None:
                raise UserError(f"the stages that all arms share, seed {seed}: {begun.stopped}")
            folder = Finished(workdir, SHARED, seed, {}).folder
            begin = ArmStart(folder / "run" / "checkpoint", to_json(replace(before, seed=seed)))
        found += [perform(arm, replace(run, seed=seed), begin, items) for arm, run in trained.items()]
    return found


def quickened(run: RunConfig, steps: int = _QUICK_STEPS) -> RunConfig:
    """The run with so many steps a stage."""
    stages = {name: replace(stage, steps=steps, epochs=None) for name, stage in run.stages.items()}
    return replace(run, stages=stages)


def budget(run: RunConfig) -> int:
    """Positions that a run trains on, filled or not: steps x rows x positions of all its stages."""
    return sum(steps_of(run, name) * _a_step(run, name) for name in run.curriculum)


def steps_of(run: RunConfig, name: str) -> int:
    """Raises UserError for a stage in epochs: what it costs is not known before its data is."""
    steps = run.stages[name].steps
    if steps is None:
        raise UserError(f"stages.{name} is in epochs; an experiment keeps budgets equal, so give it steps")
    return steps


def _a_step(run: RunConfig, name: str) -> int:
    return run.stages[name].rows * run.stages[name].positions


def _setting(run: RunConfig, options: Options, scored: bool) -> dict[str, Any]:
    """What makes two runs the same one. The data is checked by training itself."""
    setting: dict[str, Any] = {"run": to_json(run)}
    if options.whisper is not None:
        setting["whisper"] = whisper_digest(options.whisper)
    if scored:
        assert options.benchmark is not None
        setting["benchmark"] = hashlib.sha256(options.benchmark.read_bytes()).hexdigest()
        setting["tasks"] = list(options.tasks)
        if options.limit is not None:
            setting["limit"] = options.limit
    return setting


def _perform(
    run: RunConfig, folder: Path, items: dict[str, list[Item]], advance: Callable[[int], None]
) -> dict[str, Any]:
    total, stopped, scores = sum(steps_of(run, name) for name in run.curriculum), None, {}

    def on_step(stage: str, step: int, steps: int, line: dict[str, Any]) -> None:
        advance(round(_TRAINING * line["global_step"] / total))

    try:
        checkpoint = train_curriculum(run, folder, Callbacks(on_step=on_step))
    except BadStepError as error:
        stopped = str(error)
    else:
        if items:
            scoring = lambda done, total: advance(_TRAINING + (_A_RUN - _TRAINING) * done // total)  # noqa: E731
            scores = evaluate(MuFun.from_pretrained(checkpoint, "float32"), items, progress=scoring)
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    kept = ("stage", "global_step", "loss", "learning_rate", "gradient_norm")
    return {
        "scores": {task: asdict(score) for task, score in scores.items()},
        "steps": [{key: line[key] for key in kept} | _parts_norms(line) for line in lines],
        "parameters": count_params(abstract_params(run.model)),
        "seconds": float(np.sum([line["seconds"] for line in lines])),
        "stopped": stopped,
    }


def _parts_norms(line: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in line.items() if key.startswith("gradient_norm_")}
