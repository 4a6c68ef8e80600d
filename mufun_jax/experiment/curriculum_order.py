"""Experiment `curriculum`: stage after stage, all stages as one, and without the warmup of the connector."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mufun_jax.config import RunConfig
from mufun_jax.errors import UserError
from mufun_jax.experiment.experiment import Defaults, Options, Tell, chosen_arms
from mufun_jax.experiment.outcome import Outcome
from mufun_jax.experiment.trained_arms import budget, quickened, steps_of
from mufun_jax.experiment.trained_outcome import compare_arms

_COMBINED = "combined"


class Curriculum:
    """See the module."""

    name = "curriculum"
    question = "Does the order of the stages matter, and the connector's warmup?"
    arms: Mapping[str, str] = {
        "sequential": "the config as it is",
        "combined": "what comes after the warmup as one stage, its mixtures mixed by the positions of their stages",
        "no warmup": "the warmup's positions go to the stage after it",
    }
    trains = True
    seeds = 3
    defaults = Defaults()

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        """Raises UserError where the config has no warmup, too few stages, or stages in epochs."""
        run = quickened(options.run) if options.quick else options.run
        made = {"sequential": lambda run: run, "combined": combined, "no warmup": without_warmup}
        runs = {arm: made[arm](run) for arm in chosen_arms(self, options)}
        return compare_arms(self, workdir, runs, options, tell, {})


def combined(run: RunConfig) -> RunConfig:
    """The stages after the warmup as one, of the shape of that with the longest rows, on as many positions in all.

    Each stage's mixture counts by its positions. The learning rate is their mean, weighted so too. Raises UserError
    where there are fewer than two such stages, or one whose weights are not shares of examples.
    """
    warmup, rest = _apart(run)
    if len(rest) < 2:
        raise UserError(f"curriculum {', '.join(run.curriculum)}: nothing to combine; two stages after the warmup are")
    shares, rate, total = dict[str, float](), 0.0, budget(replace(run, curriculum=rest))
    for name in rest:
        stage = run.stages[name]
        if stage.weigh_by != "examples":
            raise UserError(f"stages.{name}.weigh_by is {stage.weigh_by}: only shares of examples can be combined")
        part = budget(replace(run, curriculum=(name,))) / total
        rate += part * stage.learning_rate
        weights = sum(stage.mixture.values())
        for source, weight in stage.mixture.items():
            shares[source] = shares.get(source, 0.0) + part * weight / weights
    longest = max((run.stages[name] for name in reversed(rest)), key=lambda stage: stage.positions)
    steps = max(1, round(total / (longest.rows * longest.positions)))
    stage = replace(longest, mixture=shares, steps=steps, learning_rate=rate)
    return replace(run, curriculum=(*warmup, _COMBINED), stages=run.stages | {_COMBINED: stage})


def without_warmup(run: RunConfig) -> RunConfig:
    """Without the stages that have the warmup's template; the first of the rest is as much longer."""
    warmup, rest = _apart(run)
    if not warmup or not rest:
        raise UserError(f"curriculum {', '.join(run.curriculum)}: no stage with template 'warmup' to leave out")
    first = run.stages[rest[0]]
    more = round(budget(replace(run, curriculum=warmup)) / (first.rows * first.positions))
    longer = replace(first, steps=steps_of(run, rest[0]) + more)
    return replace(run, curriculum=rest, stages=run.stages | {rest[0]: longer})


def _apart(run: RunConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The stages of the warmup, and the others."""
    warmup = tuple(name for name in run.curriculum if run.stages[name].template == "warmup")
    return warmup, tuple(name for name in run.curriculum if name not in warmup)
