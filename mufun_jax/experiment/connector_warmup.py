"""Experiment `connector-warmup`: encoder and decoder frozen, the connector alone on transcriptions.

The loss must fall, and go on falling. Where it does not, the curve says why: see `diagnose`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mufun_jax.config import RunConfig
from mufun_jax.errors import UserError
from mufun_jax.experiment.comparison import Comparison, loss_figure, run_table
from mufun_jax.experiment.experiment import Defaults, Options, Tell, chosen_arms
from mufun_jax.experiment.outcome import Check, Line, Outcome, ResultFigure
from mufun_jax.experiment.trained_arms import ArmRun, budget, train_arms
from mufun_jax.experiment.trained_outcome import setting_in_words

_ARM = "connector alone"
_FEWEST_STEPS, _QUICK_STEPS = 120, 12  # a curve of fewer says little
_EDGE = 0.1  # of the steps, at either end, that a start and an end are means of
_SURELY = 3.0  # standard errors
_NO_GRADIENT = 1e-9


class ConnectorWarmup:
    """See the module."""

    name = "connector-warmup"
    question = "Does the loss fall as it should while only the connector trains?"
    arms: Mapping[str, str] = {_ARM: f"the stages of the warmup, for {_FEWEST_STEPS} steps if they have fewer"}
    trains = True
    seeds = 1
    defaults = Defaults()

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        """Raises UserError where the config has no stage that trains the connector alone."""
        chosen_arms(self, options)
        runs = {_ARM: warmup_alone(options.run, _QUICK_STEPS if options.quick else _FEWEST_STEPS)}
        found = train_arms(workdir, runs, options, tell, scored=False)
        checks = tuple(check for run in found for check in judge(run, several=len(found) > 1))
        failed = [check for check in checks if not check.holds]
        comparison = Comparison(tuple(runs), tuple(found))
        return Outcome(
            experiment=self.name,
            question=self.question,
            answer=f"No: {failed[0].said}" if failed else f"Yes: {checks[0].said}.",
            setting=setting_in_words(self.arms, runs, replace(options, benchmark=None)),
            checks=checks,
            tables=(run_table(comparison, {arm: budget(run) for arm, run in runs.items()}),),
            figures=(loss_figure(found), _norm_figure(found)),
            measured=tuple(asdict(run) for run in found),
        )


def warmup_alone(run: RunConfig, fewest: int) -> RunConfig:
    """The stages of a config in which only the connector trains, for so many steps at least."""
    only = tuple(name for name in run.curriculum if _is_warmup(run, name))
    if not only:
        raise UserError(
            f"curriculum {', '.join(run.curriculum)}: no stage trains the connector alone; set encoder='frozen', "
            "connector='full' and decoder='frozen' in one"
        )
    stages = {
        name: stage if stage.steps is None else replace(stage, steps=max(stage.steps, fewest))
        for name, stage in run.stages.items()
        if name in only
    }
    return replace(run, curriculum=only, stages=stages)


def _is_warmup(run: RunConfig, name: str) -> bool:
    stage = run.stages[name]
    return stage.trained_parts == ("connector",) and not stage.adapted_parts


def judge(run: ArmRun, *, several: bool = False) -> list[Check]:
    """Whether the loss falls, and whether nothing but the connector has a gradient."""
    fault, said = diagnose(
        [float(step["loss"]) for step in run.steps],
        [float(step["gradient_norm"]) for step in run.steps],
        run.stopped,
    )
    of = f" (seed {run.seed})" if several else ""
    parts = {
        key.removeprefix("gradient_norm_") for step in run.steps for key in step if key.startswith("gradient_norm_")
    }
    others = sorted(parts - {"connector"})
    alone = f"{', '.join(others)} had a gradient too" if others else "encoder and decoder had no gradient"
    return [Check(f"the loss falls{of}", not fault, said), Check(f"the connector trains alone{of}", not others, alone)]


def diagnose(losses: Sequence[float], norms: Sequence[float], stopped: str | None = None) -> tuple[bool, str]:
    """Whether something is wrong with a curve, and what it is with what to try, or how far the loss fell.

    A start and an end are means of a tenth of the steps each. Their difference counts where it is more than three of
    its standard errors, by the differences of neighbouring steps, which hold no trend.
    """
    if stopped:
        return True, f"{stopped}; the learning rate may be too high: try a third of it"
    if len(losses) < 2:
        return True, f"{len(losses)} steps make no curve: give the stage more"
    curve = np.asarray(losses, np.float64)
    edge = max(1, round(_EDGE * len(curve)))
    start, end = float(curve[:edge].mean()), float(curve[-edge:].mean())
    error = float(np.std(np.diff(curve)) / np.sqrt(2) * np.sqrt(2 / edge))
    fell = f"from {start:.3f} to {end:.3f} nats a token in {len(curve)} steps"
    if max(norms, default=0.0) < _NO_GRADIENT:
        return True, f"no gradient reaches the connector ({fell}): do the rows hold audio, is its output spliced in?"
    if end - start > _SURELY * error:
        return True, f"the loss rises, {fell}: the learning rate is too high; try a third of it"
    if start - end <= _SURELY * error:
        return True, (
            f"the loss does not fall by more than its own noise, {fell}: too few steps or too low a learning rate, or "
            "transcriptions that do not go with their songs"
        )
    lowest, at = _lowest(curve, edge)
    if end - lowest > max(_SURELY * error, (start - lowest) / 5):
        return True, (
            f"the loss turns up again after step {at}, at {lowest:.3f} ({fell}): the learning rate is too high; try a "
            "third of it, or a longer warmup_fraction"
        )
    return False, f"it falls {fell}"


def _lowest(curve: Float64[np.ndarray, " steps"], edge: int) -> tuple[float, int]:
    """The least mean of as many steps in a row, and the step at its end."""
    means = np.convolve(curve, np.full(edge, 1 / edge), mode="valid")
    return float(means.min()), int(means.argmin()) + edge


def _norm_figure(runs: Sequence[ArmRun]) -> ResultFigure:
    lines = tuple(
        Line(
            f"{run.arm}, seed {run.seed}",
            tuple(int(step["global_step"]) for step in run.steps),
            tuple(float(step["gradient_norm"]) for step in run.steps),
        )
        for run in runs
        if run.steps
    )
    return ResultFigure("Gradient norm", "lines", "step", "norm", lines, "of the connector, before clipping")
