"""Experiment `open-data`: the same recipe, with parts of the mixture replaced by others."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.errors import UserError, nearest
from mufun_jax.experiment.experiment import Defaults, Options, Tell
from mufun_jax.experiment.outcome import Outcome
from mufun_jax.experiment.trained_arms import quickened
from mufun_jax.experiment.trained_outcome import compare_arms

_WHOLE = "whole mixture"
_NOTHING = "nothing"
# Of the score corpus, for a config that trains on it: what each part is worth beside the others.
_SCORES = ("train_notes=train_excerpts", "train_excerpts=train_notes", "train_songs=train_excerpts")


class OpenData:
    """See the module."""

    name = "open-data"
    question = "What does the recipe lose where parts of its data are replaced?"
    arms: Mapping[str, str] = {
        _WHOLE: "the config as it is",
        "OLD by NEW": "--replace OLD=NEW: in all stages the set NEW has the share of OLD; without NEW the others have",
    }
    trains = True
    seeds = 3
    defaults = Defaults()

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        """Raises UserError where a replaced set is in no stage, or a stage would be left without data."""
        run = quickened(options.run) if options.quick else options.run
        runs, arms = {_WHOLE: run}, {_WHOLE: self.arms[_WHOLE]}
        for told in options.replacements or _usual_replacements(run):
            old, new = parsed(told)
            arm = f"{old} by {new or _NOTHING}"
            runs[arm] = with_replaced(run, old, new)
            arms[arm] = f"--replace {told}"
        for arm in options.arms:
            if arm not in runs:
                raise UserError(
                    f"{self.name} has no arm {arm!r}{nearest(arm, list(runs))}; there are {', '.join(runs)}"
                )
        chosen = {arm: run for arm, run in runs.items() if not options.arms or arm in options.arms}
        return compare_arms(self, workdir, chosen, options, tell, {}, arms=arms)


def parsed(told: str) -> tuple[str, str | None]:
    """`OLD=NEW`, or `OLD=` for nothing in its place. Raises UserError."""
    old, equals, new = told.partition("=")
    if not old or not equals or old == new:
        raise UserError(f"--replace {told}: give OLD=NEW, two prepared sets, or OLD= to leave one out")
    return old, new or None


def with_replaced(run: RunConfig, old: str, new: str | None) -> RunConfig:
    """The run with the share of `old` given to `new` in every stage that is run; None: to the stage's other sets.

    Steps, rows and all else stay. Raises UserError where no stage has `old`, or one has nothing else.
    """
    known = sorted({name for stage in run.curriculum for name in run.stages[stage].mixture})
    if old not in known:
        raise UserError(f"--replace {old}: no stage draws on it{nearest(old, known)}; there are {', '.join(known)}")
    stages = {name: _replaced(name, run.stages[name], old, new) for name in run.curriculum}
    return replace(run, stages=run.stages | stages)


def _replaced(name: str, stage: StageConfig, old: str, new: str | None) -> StageConfig:
    mixture = dict(stage.mixture)
    share = mixture.pop(old, None)
    if share is None:
        return stage
    if new is not None:
        mixture[new] = mixture.get(new, 0.0) + share
    if not mixture:
        raise UserError(f"--replace {old}=: stage {name} has nothing else to train on; name what takes its place")
    return replace(stage, mixture=mixture)


def _usual_replacements(run: RunConfig) -> tuple[str, ...]:
    known = {name for stage in run.curriculum for name in run.stages[stage].mixture}
    if not all(set(parsed(told)) <= known for told in _SCORES):
        raise UserError(f"say what is replaced: --replace OLD=NEW; the config draws on {', '.join(sorted(known))}")
    return _SCORES
