"""The outcome of an experiment that compares trained arms."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import jax

from mufun_jax.config import RunConfig
from mufun_jax.experiment.comparison import Comparison, answer, loss_figure, run_table, score_figure, score_tables
from mufun_jax.experiment.experiment import Experiment, Options, Tell
from mufun_jax.experiment.outcome import Outcome
from mufun_jax.experiment.trained_arms import budget, train_arms


def compare_arms(
    experiment: Experiment,
    workdir: Path,
    runs: Mapping[str, RunConfig],
    options: Options,
    tell: Tell,
    more: Mapping[str, str],
    *,
    shared: tuple[str, ...] = (),
    arms: Mapping[str, str] | None = None,
) -> Outcome:
    """Trains and scores all arms, and lays them beside one another. `more` is added to the setting.

    `shared` are the first stages of all, where they are the same: trained once for each seed. `arms` says what arms
    are, where that depends on what is asked for.
    """
    own = {arm: replace(run, curriculum=run.curriculum[len(shared) :]) for arm, run in runs.items()}
    budgets = {arm: budget(run) for arm, run in own.items()}
    found = train_arms(workdir, runs, options, tell, shared=shared)
    comparison = Comparison(tuple(runs), tuple(found))
    return Outcome(
        experiment=experiment.name,
        question=experiment.question,
        answer=answer(comparison),
        setting=setting_in_words(arms or experiment.arms, runs, options) | _shared_in_words(shared) | dict(more),
        tables=(*score_tables(comparison), run_table(comparison, budgets)),
        figures=(score_figure(comparison), loss_figure(found)),
        measured=tuple(asdict(run) for run in found),
    )


def _shared_in_words(shared: tuple[str, ...]) -> dict[str, str]:
    return {"shared": f"{', '.join(shared)}: trained once for each seed, before the arms"} if shared else {}


def setting_in_words(arms: Mapping[str, str], runs: Mapping[str, RunConfig], options: Options) -> dict[str, str]:
    """On what arms were trained and scored."""
    run = next(iter(runs.values()))
    parts = (("encoder", run.model.encoder), ("decoder", run.model.decoder))
    sizes = ", ".join(f"{name} of {part.layers} layers, width {part.width}" for name, part in parts)
    return {
        **{arm: words for arm, words in arms.items() if arm in runs},
        "model": f"{sizes}; from {_beginning(run, options)}",
        "data": run.data,
        "benchmark": str(options.benchmark) if options.benchmark else "none",
        "stages": ", ".join(f"{name} ({run.stages[name].steps} steps)" for name in run.curriculum),
        "seeds": ", ".join(map(str, options.seeds)),
        "device": str(jax.devices()[0].device_kind),
    }


def _beginning(run: RunConfig, options: Options) -> str:
    if options.whisper is not None:
        return f"the encoder of {options.whisper}, frozen, and random weights"
    return run.initial_model or "random weights"
