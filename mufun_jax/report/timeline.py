"""The figure of where the wall time went: a bar for each session, or one row where there are many."""

from typing import Any

import plotly.graph_objects as go

from mufun_jax.report.figures import Chart, Entry
from mufun_jax.report.layout import AXIS_LINES, base_layout
from mufun_jax.report.palette import BAD, IDLE, SERIES, WARNING
from mufun_jax.report.sessions import Session, WallTime
from mufun_jax.report.wording import duration, for_figure

_MOST_ROWS = 12
_UNITS = ((3 * 86_400, 86_400, "days"), (3 * 3_600, 3_600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))
_KINDS = (  # name, colour, place among SERIES or the CSS name of the colour
    ("starting, compiling, evaluating", IDLE, "idle"),
    ("productive", SERIES[1], "series-1"),
    ("saving", WARNING, "warning"),
    ("done again later", BAD, "bad"),
)


def timeline_chart(time: WallTime) -> Chart:
    """Bars over the wall time since the first start; what lies between them is time in which nothing ran."""
    unit, unit_name = next((size, name) for least, size, name in _UNITS if time.wall >= least)
    rows = len(time.sessions) <= _MOST_ROWS
    traces: list[go.Bar] = []
    legend: list[Entry] = []
    for place, (kind, colour, css) in enumerate(_KINDS):
        bars = [bar for session in time.sessions if (bar := _bars(session)[place])[1] > 0]
        if not bars:
            continue
        legend.append(Entry(kind, css, (len(traces),)))
        traces.append(
            go.Bar(
                orientation="h",
                base=[start / unit for start, *_ in bars],
                x=[length / unit for _, length, _ in bars],
                y=[_row(session, rows) for *_, session in bars],
                marker={"color": colour, "line": {"width": 0}},
                width=0.62,
                name=kind,
                hovertext=[f"{_title(session)}<br>{kind}: {duration(length)}" for _, length, session in bars],
                hoverinfo="text",
            )
        )
    figure = go.Figure(traces, _layout(len(time.sessions) if rows else 1))
    note = f"wall time in {unit_name}; within a session, shares, not moments"
    return Chart("timeline", "Sessions", note, figure, tuple(legend))


def _bars(session: Session) -> list[tuple[float, float, Session]]:
    """Start and length of each kind, in the order of _KINDS."""
    lengths = (session.other, session.productive, session.saving, session.taken_back)
    starts = [session.start + sum(lengths[:place]) for place in range(len(lengths))]
    return [(start, length, session) for start, length in zip(starts, lengths, strict=True)]


def _row(session: Session, rows: bool) -> str:
    return f"session {session.number}" if rows else "all"


def _title(session: Session) -> str:
    device = f" on {for_figure(session.device)}" if session.device else ""
    ended = f", {session.ended_by}" if session.ended_by else ""
    first, length = (session.resumed_from or 0) + 1, duration(session.end - session.start)
    return f"<b>session {session.number}</b>{device}<br>steps {first:,} to {session.reached:,}, {length}{ended}"


def _layout(rows: int) -> dict[str, Any]:
    axis = AXIS_LINES | {"zeroline": False, "automargin": True}
    base = base_layout(44 + 30 * rows, left=8, right=12, top=6, bottom=26)
    return base | {
        "barmode": "overlay",
        "hoverlabel": base["hoverlabel"] | {"align": "left"},
        "xaxis": axis | {"rangemode": "tozero"},
        "yaxis": axis | {"type": "category", "autorange": "reversed", "showgrid": False, "visible": rows > 1},
    }
