"""The page of a run."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from mufun_jax.report.events import Event
from mufun_jax.report.figures import Chart, loss_chart, step_charts
from mufun_jax.report.history import History
from mufun_jax.report.page_parts import FOLDER, render_page
from mufun_jax.report.timeline import timeline_chart
from mufun_jax.report.wording import duration, percent, short

_RECENT = 200  # steps that a tile's "now" is the median of
_MOST_EVENTS = 400  # rows of the table; of more, the first quarter and the last are shown


@dataclass(frozen=True)
class Tile:
    """A figure at the top of the page."""

    label: str
    value: str
    more: str = ""


@dataclass(frozen=True)
class EventRow:
    """An event, or so many saves in a row of which this is the last; None in the place of rows that are left out."""

    event: Event | None
    count: int


def make_page(history: History, now: float) -> str:
    """The page as HTML (see `render_page`). `now` is when it is made, in seconds since the epoch."""
    loss, charts = loss_chart(history), step_charts(history)
    timeline = timeline_chart(history.time) if history.time else None
    return render_page(
        FOLDER / "page.html",
        [chart for chart in (loss, *charts, timeline) if chart],
        filters={"duration": duration, "percent": percent, "short": short, "moment": moment},
        script=FOLDER / "page.js",
        history=history,
        made=now,
        tiles=tiles(history, loss),
        rows=event_rows(history.events),
        loss=loss,
        charts=charts,
        timeline=timeline,
    )


def tiles(history: History, loss: Chart | None) -> list[Tile]:
    """What is asked first of a run; what is not known is left out."""
    steps, time = history.steps, history.time
    found = []
    if loss:
        found.append(Tile("loss", loss.last, f"smoothed, {steps.stages[steps.stage[-1]]}"))
    share = f"{percent(history.global_step / history.planned)} of {history.planned:,}" if history.planned else ""
    found.append(Tile("steps", f"{history.global_step:,}", share))
    if time is None:
        found.append(Tile("step time", duration(steps.total("seconds")), "all steps together"))
    else:
        restarts, rollbacks = len(time.sessions) - 1, sum(event.event == "rollback" for event in history.events)
        found += [
            Tile("wall time", duration(time.wall), time.sessions[-1].device),
            Tile("goodput", percent(time.goodput), "steps that count over wall time"),
            Tile("lost", duration(time.lost), f"{_count(restarts, 'restart')}, {_count(rollbacks, 'rollback')}"),
        ]
    if steps.skipped:
        found.append(Tile("skipped", f"{len(steps.skipped):,}", "steps, by the guard"))
    if "mfu" in steps.values:
        found.append(Tile("MFU", percent(_recent(history, "mfu")), f"best {percent(_best(history, 'mfu'))}"))
    if "tokens_per_second" in steps.values:
        found.append(Tile("tokens a second", short(_recent(history, "tokens_per_second")), "of late"))
    if "audio_seconds_per_second" in steps.values and "seconds" in steps.values:
        heard = np.nansum(steps.values["audio_seconds_per_second"] * steps.values["seconds"])
        found.append(
            Tile(
                "music heard",
                f"{short(heard / 3600) if heard > 3.6e8 else format(heard / 3600, ',.0f')} h",
                "in all steps",
            )
        )
    return found


def event_rows(events: tuple[Event, ...]) -> list[EventRow]:
    """The rows of the events' table: saves in a row are one, and of very many the middle is left out."""
    rows: list[EventRow] = []
    for event in events:
        before = rows[-1] if rows else None
        together = before and before.event and before.event.event == event.event == "saved"
        if before and together:
            rows[-1] = EventRow(event, before.count + 1)
        else:
            rows.append(EventRow(event, 1))
    if len(rows) <= _MOST_EVENTS:
        return rows
    first, last = _MOST_EVENTS // 4, _MOST_EVENTS - _MOST_EVENTS // 4
    return [*rows[:first], EventRow(None, len(rows) - first - last), *rows[-last:]]


def moment(time: float) -> str:
    """`2026-03-01 14:05:09` in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _recent(history: History, name: str) -> float:
    """The median of a field's newest numbers, in the newest stage that has any."""
    steps = history.steps
    values = steps.values[name]
    places = np.flatnonzero(np.isfinite(values))
    places = places[steps.stage[places] == steps.stage[places[-1]]][-_RECENT:]
    return float(np.median(values[places]))


def _best(history: History, name: str) -> float:
    return float(np.nanmax(history.steps.values[name]))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
