"""Experiment `context-length`: how much of a song must be heard to answer questions about its structure."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.errors import UserError
from mufun_jax.experiment.experiment import Defaults, Options, Tell, chosen_arms
from mufun_jax.experiment.outcome import Outcome
from mufun_jax.experiment.trained_arms import quickened
from mufun_jax.experiment.trained_outcome import compare_arms

LENGTHS = {f"{seconds} s": seconds for seconds in (390, 240, 120, 30)}  # the paper's, and parts of it


class ContextLength:
    """See the module."""

    name = "context-length"
    question = "Does hearing more of a song help with its structure?"
    arms: Mapping[str, str] = {
        arm: f"only the first {arm} of each song are heard, in training and when asked" for arm in LENGTHS
    }
    trains = True
    seeds = 3
    defaults = Defaults(
        config="nano_long",
        benchmark="heldout_structures.json",
        corpus={"train_structures": 120, "held_out_structures": 30},
    )

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        """Raises UserError where the config's model hears less than an arm."""
        run = quickened(options.run) if options.quick else options.run
        chosen = chosen_arms(self, options)
        hears = run.model.max_seconds
        too_long = [arm for arm in chosen if LENGTHS[arm] > hears]
        if too_long:
            raise UserError(
                f"the config's model hears {hears:g} s, less than {too_long[0]}: raise model.max_windows or name --arm"
            )
        runs = {arm: heard_for(run, LENGTHS[arm]) for arm in chosen}
        more = {"rows": "steps, rows and texts are the same in all arms; positions are fewer where less is heard"}
        return compare_arms(self, workdir, runs, options, tell, more, shared=_same_stages(list(runs.values())))


def heard_for(run: RunConfig, seconds: float) -> RunConfig:
    """The run with a model that hears so many seconds at most, rounded up to whole windows, and stages to match.

    A stage's rows keep their number and their room for text.
    """
    window = run.model.encoder.window_seconds
    most = math.ceil(seconds / window)
    model = replace(run.model, max_windows=min(most, run.model.max_windows))
    stages = {
        name: _cut(stage, most, run.model.encoder.tokens_per_window, window) for name, stage in run.stages.items()
    }
    return replace(run, model=model, stages=stages)


def _cut(stage: StageConfig, most: int, tokens: int, window: float) -> StageConfig:
    """The stage with songs of at most so many windows. One that has none longer stays as it is."""
    longest = math.ceil(stage.longest_audio / window)
    if longest <= most:
        return stage
    songs = max(1, stage.windows // longest)  # of a row
    windows = stage.windows - songs * (longest - most)
    positions = stage.positions - (stage.windows - windows) * tokens
    return replace(stage, windows=windows, positions=positions, longest_audio=most * window)


def _same_stages(runs: list[RunConfig]) -> tuple[str, ...]:
    """The first stages that all runs share, but for the last one's, of which each run must have its own."""
    first = runs[0]
    same = takewhile(lambda name: all(run.stages[name] == first.stages[name] for run in runs), first.curriculum[:-1])
    return tuple(same)
