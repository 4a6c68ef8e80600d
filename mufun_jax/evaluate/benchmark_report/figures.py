"""The figures of a benchmark's page, made with Plotly: a radar over groups, all ways and baselines, and the sets."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from mufun_jax.evaluate.benchmark_report.report import BenchmarkReport, PublishedScores, accuracy_text, interval_text
from mufun_jax.evaluate.benchmark_report.table import CONDITION_NAMES, WAY_NAMES
from mufun_jax.evaluate.benchmark_scores.scores import SetScore
from mufun_jax.evaluate.statistics import Accuracy
from mufun_jax.report.figures import Chart, Entry
from mufun_jax.report.layout import AXIS_LINES, CLEAR, base_layout
from mufun_jax.report.palette import AXIS, IDLE, INK, SURFACE, series
from mufun_jax.report.wording import for_figure

_OURS = 0  # the colour of the run among the series; those after it are the published models'
_SYMBOLS = ("diamond", "square", "triangle-up", "circle", "x", "star", "hexagon")
_ROW = 21  # pixels
_FEWEST = 3  # groups of a radar
_ODD_WIDTH = 11  # pixels of a baseline's mark


def charts(report: BenchmarkReport) -> list[Chart]:
    """The figures there is something for."""
    found = [_radar(report), _ways(report), _sets(report)]
    return [chart for chart in found if chart is not None]


def _radar(report: BenchmarkReport) -> Chart | None:
    groups = [group for group in report.scores.groups if "generated" in group.average]
    if len(groups) < _FEWEST:
        return None
    names = [group.name for group in groups]
    ours = [group.average["generated"].accuracy for group in groups]
    traces, legend = [], [Entry(_short(report.model), f"series-{_OURS}", (0, 1))]
    traces.append(_ring(names, ours, series(_OURS), filled=True))
    traces.append(_ring(names, ours, series(_OURS), name=for_figure(report.model), width=2.75))
    for number, each in enumerate(report.published, 1):
        values = [each.groups.get(name) for name in names]
        legend.append(Entry(each.model, f"series-{number} {_symbol(number)}", (len(traces),)))
        traces.append(_ring(names, values, series(number), name=for_figure(each.model), width=1.4, symbol=number))
    if all("text_only" in group.baselines for group in groups):
        silent = [group.baselines["text_only"]["generated"].accuracy for group in groups]
        legend.append(Entry("no audio", "idle", (len(traces),)))
        traces.append(_ring(names, silent, IDLE, name="no audio", width=1.5, dash="dot"))
    figure = go.Figure(traces, _layout(430))
    figure.update_layout(
        margin={"l": 70, "r": 70, "t": 30, "b": 30},
        polar={
            "bgcolor": CLEAR,
            "angularaxis": AXIS_LINES | {"direction": "clockwise", "rotation": 90, "tickfont": {"color": INK}},
            "radialaxis": AXIS_LINES
            | {"range": [0, 100], "tickvals": [25, 50, 75, 100], "angle": 90, "tickangle": 90, "showline": False}
            | {"tickfont": {"size": 10}},
        },
    )
    note = "accuracy in percent, the plain mean over each group's sets"
    return Chart("radar", "Groups", note, figure, tuple(legend))


def _ring(
    names: Sequence[str],
    values: Sequence[float | None],
    colour: str,
    *,
    name: str = "",
    width: float = 0,
    filled: bool = False,
    symbol: int | None = None,
    dash: str = "solid",
) -> go.Scatterpolar:
    """A closed line over the groups, or the faint area in it."""
    around = [for_figure(each) for each in (*names, names[0])]
    radii = [None if value is None else 100 * value for value in (*values, values[0])]
    return go.Scatterpolar(
        theta=around,
        r=radii,
        name=name,
        mode="none" if filled else "lines" if symbol is None else "lines+markers",
        fill="toself" if filled else "none",
        fillcolor=colour,
        opacity=0.16 if filled else 1.0,
        line={"color": colour, "width": width, "dash": dash},
        marker={"color": colour, "size": 5, "symbol": _symbol(symbol or 0)},
        hoverinfo="skip" if filled else "text",
        hovertext=[
            f"{name}: {theta} {radius:.1f} %" if radius is not None else ""
            for theta, radius in zip(around, radii, strict=True)
        ],
    )


def _ways(report: BenchmarkReport) -> Chart | None:
    """All that the run scored on average, one bar each: by every way, then what a model scores that cannot hear."""
    overall = report.scores.overall
    rows: list[tuple[str, Accuracy | float, str]] = [
        (WAY_NAMES[way], accuracy, series(_OURS)) for way, accuracy in overall.average.items()
    ]
    if overall.published_convention is not None:
        rows.append(("published convention", overall.published_convention, series(_OURS)))
    for condition, ways in overall.baselines.items():
        if "generated" in ways:
            rows.append((f"{CONDITION_NAMES[condition]}, generated", ways["generated"], IDLE))
    if overall.majority is not None:
        rows.append(("best single letter", overall.majority, IDLE))
    if not rows:
        return None
    figure = go.Figure([_bars([name for name, _, _ in rows], [a for _, a, _ in rows], [c for _, _, c in rows])])
    figure.update_layout(_layout(70 + 34 * len(rows)), yaxis=_names_axis(len(rows)), xaxis=_percent_axis(), bargap=0.45)
    note = f"percent, plain mean over {len(overall.sets)} sets; lines are 95 % intervals clustered by song"
    return Chart("ways", "Ways and baselines", note, figure)


def _sets(report: BenchmarkReport) -> Chart | None:
    """A bar a set with its interval, beside the published models as points; groups are headings."""
    rows: list[tuple[str, SetScore | None]] = []
    for group in report.scores.groups:
        rows.append((f"<b>{for_figure(group.name)}</b>", None))
        rows += [(for_figure(each.name), each) for each in report.scores.sets if each.group == group.name]
    if not report.scores.sets:
        return None
    labels = _distinct([label for label, _ in rows])
    accuracies = [each.ways.get("generated") if each else None for _, each in rows]
    traces: list[go.Bar | go.Scatter] = [
        _bars(labels, accuracies, [series(_OURS)] * len(rows), name=report.model, opacity=0.38)
    ]
    legend = [Entry(_short(report.model), f"series-{_OURS}", (0,))]
    places = {each.name: label for (_, each), label in zip(rows, labels, strict=True) if each}
    silent = {
        each.name: each.baselines["text_only"]["generated"].accuracy
        for each in report.scores.sets
        if "text_only" in each.baselines
    }
    majority = {each.name: each.majority for each in report.scores.sets}
    baseline, what = (silent, "no audio") if silent else (majority, "best single letter")
    legend.append(Entry(what, "ink-mark", (len(traces),)))
    traces.append(_points({places[name]: value for name, value in baseline.items()}, what, INK, "line-ns-open"))
    for number, each in enumerate(report.published, 1):
        legend.append(Entry(each.model, f"series-{number} {_symbol(number)}", (len(traces),)))
        traces.append(_published_points(each, places, number))
    figure = go.Figure(traces, _layout(60 + _ROW * len(rows)))
    figure.update_layout(yaxis=_names_axis(len(rows)) | {"categoryarray": labels}, xaxis=_percent_axis(), bargap=0.36)
    note = "accuracy in percent; lines are 95 % intervals clustered by song"
    return Chart("sets", "Sets", note, figure, tuple(legend))


def _published_points(each: PublishedScores, places: dict[str, str], number: int) -> go.Scatter:
    points = {places[name]: value for name, value in each.sets.items()}
    return _points(points, each.model, series(number), _symbol(number))


def _points(points: dict[str, float], name: str, colour: str, symbol: str) -> go.Scatter:
    marked = {"color": colour, "symbol": symbol, "size": 9, "line": {"color": SURFACE, "width": 0.75}}
    if symbol == "line-ns-open":
        marked |= {"size": _ODD_WIDTH, "line": {"color": colour, "width": 1.75}}
    return go.Scatter(
        x=[100 * value for value in points.values()],
        y=list(points),
        name=for_figure(name),
        mode="markers",
        marker=marked,
        hovertext=[f"{for_figure(name)}: {label} {100 * value:.1f} %" for label, value in points.items()],
        hoverinfo="text",
        cliponaxis=False,
    )


def _bars(
    labels: Sequence[str],
    values: Sequence[Accuracy | float | None],
    colours: Sequence[str],
    *,
    name: str = "",
    opacity: float = 0.82,
) -> go.Bar:
    """Horizontal bars with their clustered intervals, where they have one."""
    shares, above, below, texts = [], [], [], []
    for label, value in zip(labels, values, strict=True):
        share = value.accuracy if isinstance(value, Accuracy) else value
        low, high = value.clustered if isinstance(value, Accuracy) else (share or 0.0, share or 0.0)
        shares.append(None if share is None else 100 * share)
        above.append(None if share is None or low == high else 100 * max(0.0, high - share))
        below.append(None if share is None or low == high else 100 * max(0.0, share - low))
        several = f" ({interval_text(value)}), n {value.n:,}" if isinstance(value, Accuracy) else ""
        shown = accuracy_text(value) if isinstance(value, Accuracy) else f"{100 * (share or 0):.1f}"
        texts.append(f"{label}: {shown} %{several}")
    return go.Bar(
        x=shares,
        y=list(labels),
        name=for_figure(name),
        orientation="h",
        marker={"color": list(colours), "line": {"width": 0}, "opacity": opacity},
        error_x={"array": above, "arrayminus": below, "color": INK, "thickness": 1.1, "width": 3},
        hovertext=texts,
        hoverinfo="text",
    )


def _layout(height: int) -> dict[str, Any]:
    return base_layout(height, left=20, right=24, top=10, bottom=34)


def _percent_axis() -> dict[str, Any]:
    axis = AXIS_LINES | {"zeroline": True, "zerolinecolor": AXIS}
    return axis | {"range": [0, 101], "tickvals": [0, 25, 50, 75, 100], "fixedrange": True}


def _names_axis(rows: int) -> dict[str, Any]:
    names = {"range": [rows - 0.4, -0.6], "automargin": True, "tickfont": {"color": INK}, "fixedrange": True}
    return names | {"showgrid": False, "ticks": "", "type": "category", "ticklabelstandoff": 6}


def _distinct(labels: Sequence[str]) -> list[str]:
    """Labels of which no two are alike, since Plotly would draw those in one row: a set called as another, cut."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen[label] + 1 if label in seen else 1
        found.append(label + "\u200b" * (seen[label] - 1))
    return found


def _symbol(number: int) -> str:
    return _SYMBOLS[number % len(_SYMBOLS)]


def _short(name: str) -> str:
    return name if len(name) <= 48 else f"…{name[-47:]}"
