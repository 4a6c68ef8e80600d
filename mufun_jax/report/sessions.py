"""Where the wall time of a run went: its sessions, one for each start, and goodput."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mufun_jax.report.events import Event
from mufun_jax.report.steps import Steps

STOPPED_BY = ("end", "preempted", "stalled", "failed")


@dataclass(frozen=True)
class Session:
    """From one start of a run to its end. Times in seconds; `start` and `end` since the run's first start."""

    number: int
    start: float
    end: float
    productive: float  # of the steps that count
    saving: float  # as far as events say how long a save took
    taken_back: float  # estimated: of steps that were done, and had to be done again
    resumed_from: int | None
    reached: int  # global step
    device: str  # "64 TPU v5e", or nothing where it is not known
    ended_by: str | None  # the event; None: it was killed, or is running

    @property
    def other(self) -> float:
        """Of the rest: starting, compiling, evaluating."""
        return max(0.0, self.end - self.start - self.productive - self.saving - self.taken_back)


@dataclass(frozen=True)
class WallTime:
    """All sessions. Every figure is in seconds."""

    sessions: tuple[Session, ...]

    @property
    def wall(self) -> float:
        """From the first start to the last event, or the last step after it."""
        return self.sessions[-1].end

    @property
    def down(self) -> float:
        """Between sessions."""
        return self.wall - sum(session.end - session.start for session in self.sessions)

    @property
    def lost(self) -> float:
        """To restarts and rollbacks: the time between sessions, and that of work done twice."""
        return self.down + sum(session.taken_back for session in self.sessions)

    @property
    def goodput(self) -> float:
        """The share of the wall time that went into steps that count: 0 to 1."""
        productive = sum(session.productive for session in self.sessions)
        return min(1.0, productive / self.wall) if self.wall > 0 else 0.0


def wall_time(events: Sequence[Event], steps: Steps) -> WallTime | None:
    """The sessions that events tell of; None without events.

    Wall clocks can jump. One that goes back is held, and a session is at least as long as the steps done in it: no time
    is negative, and goodput is never over 1.
    """
    if not events:
        return None
    groups = _by_session(events)
    froms = [group[0].resumed_from or 0 for group in groups]
    seconds = np.nan_to_num(steps.values["seconds"]) if "seconds" in steps.values else np.zeros(len(steps))
    owner = _owners(froms, steps.global_step)
    usual = float(np.median(seconds)) if len(seconds) else 0.0
    first, clock, sessions = events[0].time, 0.0, []
    for place, group in enumerate(groups):
        clock = max(clock, group[0].time - first)
        own = owner == place
        session = _session(
            group,
            start=clock,
            last_event=max(clock, *(event.time - first for event in group)),
            own=(steps.global_step[own], seconds[own]),
            usual=usual,
            resumed=froms[place + 1] if place + 1 < len(groups) else None,
        )
        sessions.append(session)
        clock = session.end
    return WallTime(tuple(sessions))


def _session(
    group: Sequence[Event],
    *,
    start: float,
    last_event: float,
    own: tuple[Int64[np.ndarray, " own"], Float64[np.ndarray, " own"]],
    usual: float,
    resumed: int | None,
) -> Session:
    """One session. `own`: its steps and their seconds; `usual`: of a step; `resumed`: where the next one began."""
    numbers, seconds = own
    reached = max([event.global_step for event in group] + numbers[-1:].tolist())
    productive = float(seconds.sum())
    saving = sum((event.seconds or 0.0 for event in group if event.event == "saved"), 0.0)
    after = float(seconds[numbers > group[-1].global_step].sum())  # done since the last event
    end = max(last_event + after, start + productive + saving)
    rest = end - start - productive - saving
    again = _steps_taken_back(group, reached, resumed) * usual
    begin = group[0]
    known = begin.devices is not None and begin.device_kind is not None
    return Session(
        number=begin.session,
        start=start,
        end=end,
        productive=productive,
        saving=saving,
        taken_back=max(0.0, min(rest, again)),
        resumed_from=begin.resumed_from,
        reached=reached,
        device=f"{begin.devices} {begin.device_kind}" if known else "",
        ended_by=group[-1].event if group[-1].event in STOPPED_BY else None,
    )


def _steps_taken_back(group: Sequence[Event], reached: int, resumed: int | None) -> int:
    """Steps of a session that were done again: after its last save, and, at a rollback, after the save before it."""
    again = 0 if resumed is None else max(0, reached - resumed)
    saved = group[0].resumed_from or 0
    for event in group:
        if event.event == "saved":
            saved = event.global_step
        elif event.event == "rollback":
            again += max(0, event.global_step - saved)
    return again


def _by_session(events: Sequence[Event]) -> list[list[Event]]:
    groups: list[list[Event]] = []
    for event in events:
        if not groups or event.session != groups[-1][0].session:
            groups.append([])
        groups[-1].append(event)
    return groups


def _owners(froms: Sequence[int], global_step: Int64[np.ndarray, " steps"]) -> Int64[np.ndarray, " steps"]:
    """The session whose step counts: the last of those that began before it."""
    owner = np.zeros(len(global_step), np.int64)
    for place, resumed in enumerate(froms):
        owner[global_step > resumed] = place
    return owner
