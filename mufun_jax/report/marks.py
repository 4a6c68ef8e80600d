"""What happened at a step, as marks on the curves: restarts, rollbacks, skipped steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from mufun_jax.report.events import Event
from mufun_jax.report.history import History
from mufun_jax.report.palette import BAD, QUIET, WARNING
from mufun_jax.report.steps import Steps
from mufun_jax.report.wording import for_figure

_LOOKS = {  # event -> symbol, colour, height over the chart's lower edge
    "restart": ("triangle-down", QUIET, 1.0),
    "rollback": ("diamond", BAD, 1.0),
    "damaged": ("square", WARNING, 1.0),
    "skipped": ("x-thin-open", BAD, 0.03),
}
_MOST_SKIPPED = 1_000  # marks; more would hide the curve


@dataclass(frozen=True)
class Mark:
    """Something at a step, and what to say of it when it is pointed at."""

    kind: str
    global_step: int
    text: str

    @property
    def symbol(self) -> str:
        return _LOOKS[self.kind][0]

    @property
    def colour(self) -> str:
        return _LOOKS[self.kind][1]

    @property
    def height(self) -> float:
        return _LOOKS[self.kind][2]


def marks(history: History) -> list[Mark]:
    """Restarts, rollbacks and damaged checkpoints. A restart stands at the step that it went on from."""
    shown = []
    reached = 0
    for event in history.events:
        if event.event == "start" and event.session > 0:
            shown.append(_restart(event, reached))
        elif event.event in ("rollback", "damaged"):
            shown.append(Mark(event.event, event.global_step, _said(event)))
        reached = max(reached, event.global_step)
    return shown


def skipped_marks(steps: Steps) -> list[Mark]:
    """Steps that the guard passed over; neighbours share a mark."""
    shown = []
    for group in _neighbours(sorted(steps.skipped)):
        first, last = (int(steps.global_step[place]) for place in (group[0], group[-1]))
        where = f"step {first:,}" if first == last else f"steps {first:,} to {last:,}"
        shown.append(Mark("skipped", first, f"{where} skipped: {for_figure(steps.skipped[group[0]])}"))
    every = -(-len(shown) // _MOST_SKIPPED)
    return shown[::every] if shown else []


def _restart(event: Event, reached: int) -> Mark:
    resumed = event.resumed_from or 0
    again = f", {reached - resumed:,} steps done again" if reached > resumed else ""
    return Mark("restart", resumed, f"restart {event.session}: from step {resumed:,}{again}")


def _said(event: Event) -> str:
    said = f": {for_figure(event.message)}" if event.message else ""
    return f"{event.event}{said}"


def _neighbours(places: Sequence[int]) -> list[list[int]]:
    groups: list[list[int]] = [[place] for place in places[:1]]
    for before, place in pairwise(places):
        if place == before + 1:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
