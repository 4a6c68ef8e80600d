"""The history of a run, read from its workdir: steps, events, stages, config; files of older runs may lack some."""

import json
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float64
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mufun_jax.errors import UserError
from mufun_jax.report.events import Event, read_events
from mufun_jax.report.sessions import WallTime, wall_time
from mufun_jax.report.steps import Steps, read_steps

_EDGE = 0.05  # of a stage's steps, at either end, that its start and end losses are means of
_QUIET_STEPS, _QUIET_SECONDS = 20, 600.0  # a run that wrote nothing for so many steps, and so long, is not running
_LENIENT = ConfigDict(extra="ignore", arbitrary_types_allowed=True)
Said = TypeVar("Said")
State = Literal["finished", "running", "stopped"]


@dataclass(frozen=True, config=_LENIENT)
class StageSaid:
    """What config.json says of a stage, as far as the report shows it."""

    mixture: dict[str, NonNegativeFloat] = field(default_factory=dict)
    steps: NonNegativeInt | None = None
    encoder: str = ""
    connector: str = ""
    decoder: str = ""


@dataclass(frozen=True, config=_LENIENT)
class ConfigSaid:
    """What config.json says of a run, as far as the report uses it; the rest is shown as it is."""

    stages: dict[str, StageSaid] = field(default_factory=dict)
    curriculum: tuple[str, ...] = ()


@dataclass(frozen=True, config=_LENIENT)
class PlanSaid:
    """plan.json: how many steps each stage has."""

    steps: dict[str, NonNegativeInt] = field(default_factory=dict)


@dataclass(frozen=True, config=_LENIENT)
class SetSaid:
    """What data/STAGE.json says of a set."""

    examples: NonNegativeInt
    hours: NonNegativeFloat
    left_out: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class SetShare:
    """A set of a stage's mixture. `share` is its weight over the sum of all."""

    name: str
    weight: float
    share: float
    hours: float | None = None
    examples: int | None = None
    left_out: int | None = None


@dataclass(frozen=True)
class Stage:
    """One stage: what was planned and what was done. Losses are means over 5 % of its steps, in nats a token."""

    name: str
    number: int  # its place in the curriculum, from 0
    planned: int | None
    done: int
    first: int | None  # global steps; None where nothing is done yet
    last: int | None
    loss_start: float | None
    loss_end: float | None
    seconds: float
    training: Mapping[str, str]  # part -> "full", "lora" or "frozen"
    sets: tuple[SetShare, ...]


@dataclass(frozen=True, config=_LENIENT)
class History:
    """All that the page shows."""

    name: str
    steps: Steps
    events: tuple[Event, ...]
    stages: tuple[Stage, ...]
    time: WallTime | None  # None for a run without events
    state: State
    config: dict[str, Any] | None
    unreadable: Mapping[str, int]  # file -> lines that are no JSON objects of their kind

    @property
    def planned(self) -> int | None:
        """Steps of all stages; None where one is not known."""
        counts = [stage.planned for stage in self.stages]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def global_step(self) -> int:
        return int(self.steps.global_step[-1]) if len(self.steps) else 0


def read_history(workdir: Path, now: float) -> History:
    """Reads what there is of a run. `now`, in seconds since the epoch, decides whether a run without end still runs.

    Raises:
        UserError: there is no run, or config.json, plan.json or a file of data/ is not what training writes.
    """
    paths = [workdir / "metrics.jsonl", workdir / "events.jsonl"]
    if not any(path.is_file() for path in paths):
        raise UserError(
            f"{workdir}: no run is here: neither metrics.jsonl nor events.jsonl; give the --workdir of `mufun train`"
        )
    config = _read_object(workdir / "config.json")
    said = _checked(TypeAdapter(ConfigSaid).validate_python, config or {}, workdir / "config.json")
    plan = _checked(
        TypeAdapter(PlanSaid).validate_python, _read_object(workdir / "plan.json") or {}, workdir / "plan.json"
    )
    steps, events = read_steps(paths[0]), read_events(paths[1])
    stages = tuple(
        _stage(name, number, said.stages.get(name, StageSaid()), plan, steps, _read_sets(workdir, name))
        for number, name in enumerate(_stage_names(said, plan, steps))
    )
    written = max(path.stat().st_mtime for path in paths if path.is_file())
    return History(
        name=workdir.resolve().name,
        steps=steps,
        events=events.events,
        stages=stages,
        time=wall_time(events.events, steps),
        state=_state(events.events, stages, steps, now - written, model=(workdir / "checkpoint").is_dir()),
        config=config,
        unreadable={"metrics.jsonl": steps.unreadable, "events.jsonl": events.unreadable},
    )


def _stage_names(said: ConfigSaid, plan: PlanSaid, steps: Steps) -> list[str]:
    """In the order of the curriculum; a stage that was run but is in no plan comes last."""
    return list(dict.fromkeys((*(said.curriculum or plan.steps), *steps.stages)))


def _stage(name: str, number: int, said: StageSaid, plan: PlanSaid, steps: Steps, sets: dict[str, SetSaid]) -> Stage:
    places = np.flatnonzero(steps.stage == steps.stages.index(name)) if name in steps.stages else np.array([], np.int64)
    losses = steps.values["loss"][places] if "loss" in steps.values else np.array([])
    losses = losses[np.isfinite(losses)]
    edge = max(1, round(len(losses) * _EDGE))
    seconds = steps.values["seconds"][places] if "seconds" in steps.values else np.array([])
    return Stage(
        name=name,
        number=number,
        planned=plan.steps.get(name, said.steps),
        done=len(places),
        first=int(steps.global_step[places[0]]) if len(places) else None,
        last=int(steps.global_step[places[-1]]) if len(places) else None,
        loss_start=_mean(losses[:edge]),
        loss_end=_mean(losses[-edge:]),
        seconds=float(np.nansum(seconds)),
        training={
            part: training
            for part, training in (
                ("encoder", said.encoder),
                ("connector", said.connector),
                ("decoder", said.decoder),
            )
            if training
        },
        sets=_shares(said.mixture, sets),
    )


def _shares(mixture: Mapping[str, float], sets: Mapping[str, SetSaid]) -> tuple[SetShare, ...]:
    total = sum(mixture.values()) or 1.0
    shares = []
    for name, weight in mixture.items():
        found = sets.get(name)
        known = (found.hours, found.examples, len(found.left_out)) if found else (None, None, None)
        shares.append(SetShare(name, weight, weight / total, *known))
    return tuple(shares)


def _mean(losses: Float64[np.ndarray, " steps"]) -> float | None:
    return float(losses.mean()) if len(losses) else None


def _state(events: tuple[Event, ...], stages: tuple[Stage, ...], steps: Steps, quiet: float, *, model: bool) -> State:
    """`quiet`: seconds since the run wrote anything. `model`: the trained model is there."""
    last = events[-1].event if events else ""
    complete = bool(stages) and all(stage.planned is not None and stage.done >= stage.planned for stage in stages)
    if last == "end" or (not events and (complete or model)):
        return "finished"
    usual = float(np.nanmedian(steps.values["seconds"])) if "seconds" in steps.values else 0.0
    gone = last in ("preempted", "failed", "stalled") or quiet > max(_QUIET_SECONDS, _QUIET_STEPS * usual)
    return "stopped" if gone else "running"


def _read_sets(workdir: Path, stage: str) -> dict[str, SetSaid]:
    """What is known of the data of a stage; nothing before it began, and nothing for a name that is no file's."""
    if "/" in stage or "\0" in stage:
        return {}
    path = workdir / "data" / f"{stage}.json"
    return _checked(TypeAdapter(dict[str, SetSaid]).validate_python, _read_object(path) or {}, path)


def _read_object(path: Path) -> dict[str, Any] | None:
    """A file's JSON object; None without the file. Raises UserError."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON ({error}); it is not what `mufun train` writes") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds no JSON object; it is not what `mufun train` writes")
    return found


def _checked(validated: Callable[[Any], Said], values: dict[str, Any], path: Path) -> Said:
    try:
        return validated(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {key}: {first['msg']}; it is not what `mufun train` writes") from None
