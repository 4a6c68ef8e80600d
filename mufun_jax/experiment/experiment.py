"""What an experiment is: a question, arms that are compared, and a run that gives an outcome."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mufun_jax.config import RunConfig
from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.tasks import Item, load_items
from mufun_jax.experiment.outcome import Outcome

_QUICK_QUESTIONS = 12  # of a task

Tell = Callable[[int, int, str], None]  # work done, work in all, and what is being done


@dataclass(frozen=True)
class Options:
    """On what an experiment is run.

    `run` is the config of every arm but for what the arm changes in it. `benchmark` is the manifest that models are
    scored on, `limit` how many questions of each of its tasks, `checkpoints` models that are looked at instead of a
    fresh one. `arms` names some of the experiment's, all if empty; `quick` asks for the smallest sizes at which
    everything is still done. `whisper` is a Whisper whose
    encoder, of the sizes of `run`'s, trained arms begin with. `replacements` are `OLD=NEW` of prepared sets.
    """

    run: RunConfig
    seeds: tuple[int, ...] = (0,)
    checkpoints: tuple[str, ...] = ()
    benchmark: Path | None = None
    limit: int | None = None
    tasks: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    quick: bool = False
    whisper: Path | None = None
    replacements: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> str | None:
        """The model that is looked at, where an experiment looks at one. Raises UserError where several are given."""
        if len(self.checkpoints) > 1:
            raise UserError(
                f"{len(self.checkpoints)} checkpoints, and this experiment looks at one: give --checkpoint once"
            )
        return self.checkpoints[0] if self.checkpoints else None


@dataclass(frozen=True)
class Defaults:
    """What an experiment is run on unless told otherwise.

    `config` is a file of configs/, `benchmark` a manifest of the score corpus, and `corpus` what that has more of than
    usual: fields of a `ScoreCorpusConfig`.
    """

    config: str = "nano"
    benchmark: str = "heldout.json"
    corpus: Mapping[str, int] = field(default_factory=dict)


class Experiment(Protocol):
    """An experiment of the paper, or a check that its readers asked for.

    `arms` are what is compared: a name and a sentence each. `trains` says whether it trains models, for which it needs
    prepared data; `seeds` is how many it takes unless told otherwise.
    """

    @property
    def name(self) -> str: ...

    @property
    def question(self) -> str: ...

    @property
    def arms(self) -> Mapping[str, str]: ...

    @property
    def trains(self) -> bool: ...

    @property
    def seeds(self) -> int: ...

    @property
    def defaults(self) -> Defaults: ...

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        """Runs what of the experiment is not yet done in `workdir`. Raises UserError where the options do not fit."""
        ...


def asked_items(options: Options) -> dict[str, list[Item]]:
    """The questions that models are asked, by task: `limit` of each, from all over it; with `quick` a dozen at most.

    Raises UserError where there is no benchmark.
    """
    items = all_items(options)
    limit = min(options.limit or _QUICK_QUESTIONS, _QUICK_QUESTIONS) if options.quick else options.limit
    return {task: spread(of_task, limit) for task, of_task in items.items()}


def all_items(options: Options) -> dict[str, list[Item]]:
    """The questions of the chosen tasks. Raises UserError where there is no benchmark."""
    if options.benchmark is None:
        raise UserError(
            "nothing to ask models: give --benchmark, for instance runs/demo/data/score_corpus/heldout.json"
        )
    return load_items(options.benchmark, list(options.tasks) or None)


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most so many, evenly out of all: the first ones of a manifest may be of one kind."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]


def chosen_arms(experiment: Experiment, options: Options) -> tuple[str, ...]:
    """The arms that are run, in the experiment's order. Raises UserError, with the nearest name, for an unknown one."""
    for arm in options.arms:
        if arm not in experiment.arms:
            known = list(experiment.arms)
            raise UserError(f"{experiment.name} has no arm {arm!r}{nearest(arm, known)}; there are {', '.join(known)}")
    return tuple(arm for arm in experiment.arms if not options.arms or arm in options.arms)
