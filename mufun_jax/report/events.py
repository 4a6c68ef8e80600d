"""What happened to a run, from events.jsonl: starts, stages, saves, rollbacks, ends."""

from dataclasses import field
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from mufun_jax.report.json_lines import JsonLines


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class Event:
    """One line: what happened, when, and at which step. Later versions may say more of it."""

    time: Annotated[float, Field(ge=0, le=2.5e11, allow_inf_nan=False)]  # seconds since the epoch, by the wall clock
    session: NonNegativeInt  # the how-many-th start of the run, from 0
    event: str  # "start", "stage", "saved", "damaged", "rollback", "preempted", "stalled", "failed", "profile", "end"
    global_step: NonNegativeInt  # that was reached when it happened
    message: str = ""
    seconds: Annotated[NonNegativeFloat, Field(allow_inf_nan=False)] | None = None  # that it took, of "saved"
    processes: NonNegativeInt | None = None  # of "start", as are the next three
    devices: NonNegativeInt | None = None
    device_kind: str | None = None
    resumed_from: NonNegativeInt | None = None  # global step; None: from the beginning


@dataclass(frozen=True)
class Events:
    """In the order of the file."""

    events: tuple[Event, ...] = field(default=())
    unreadable: int = 0


def read_events(path: Path) -> Events:
    """Reads an events file; lines that are no events are counted."""
    adapter, lines, events, unreadable = TypeAdapter(Event), JsonLines(path), [], 0
    for line in lines:
        try:
            events.append(adapter.validate_python(line))
        except ValidationError:
            unreadable += 1
    return Events(tuple(events), unreadable + lines.unreadable)
