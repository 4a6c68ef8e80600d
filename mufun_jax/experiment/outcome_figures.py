"""The figures of an experiment's page, made with Plotly."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from mufun_jax.experiment.outcome import Line, ResultFigure
from mufun_jax.report.figures import Chart, Entry
from mufun_jax.report.layout import AXIS_LINES, base_layout
from mufun_jax.report.palette import INK, series
from mufun_jax.report.wording import for_figure

_HEIGHT = 330  # pixels
_DASHES = ("solid", "dot", "dash", "longdash", "dashdot")


def charts(figures: Sequence[ResultFigure]) -> list[Chart]:
    """Each with a legend where it has several lines."""
    return [_chart(f"figure-{number}", figure) for number, figure in enumerate(figures)]


def _chart(id: str, figure: ResultFigure) -> Chart:
    traces = [_trace(figure.kind, number, line) for number, line in enumerate(figure.lines)]
    axis = AXIS_LINES | {"zeroline": False, "automargin": True}
    numbers = all(isinstance(x, int | float) for line in figure.lines for x in line.x)
    drawn = go.Figure(
        traces,
        base_layout(_HEIGHT, left=52, right=20, top=10, bottom=40)
        | {
            "xaxis": axis
            | {"showgrid": False, "showline": True, "type": "linear" if numbers else "category"}
            | {"title": {"text": for_figure(figure.x_title)}},
            "yaxis": axis
            | {
                "rangemode": "tozero" if figure.kind == "bars" else "normal",
                "exponentformat": "power",
                "hoverformat": ".4~g",
            }
            | {"title": {"text": for_figure(figure.y_title)}},
            "barmode": "group",
            "bargap": 0.3,
        },
    )
    legend = tuple(Entry(line.name, f"series-{number % 8}", (number,)) for number, line in enumerate(figure.lines))
    return Chart(id, figure.title, figure.note, drawn, legend if len(legend) > 1 else ())


def _trace(kind: str, number: int, line: Line) -> Any:
    colour, name = series(number), for_figure(line.name)
    x = [for_figure(at) if isinstance(at, str) else at for at in line.x]
    y = [None if at is None or not math.isfinite(at) else at for at in line.y]
    error = {"type": "data", "array": list(line.error), "color": INK, "thickness": 1.2, "width": 3}
    bars = {"error_y": error} if line.error else {}
    if kind == "bars":
        return go.Bar(x=x, y=y, name=name, marker={"color": colour, "line": {"width": 0}}, **bars)
    mode = "lines" if kind == "lines" and len(x) > 1 else "markers"
    stroke = {"color": colour, "width": 1.75, "dash": _DASHES[number // 8 % len(_DASHES)]}
    return go.Scatter(x=x, y=y, name=name, mode=mode, line=stroke, marker={"color": colour, "size": 6}, **bars)
