"""The figures of the page, made with Plotly: loss, what else was measured at each step, and the sessions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float64

from mufun_jax.report.history import History
from mufun_jax.report.layout import AXIS_LINES, base_layout
from mufun_jax.report.marks import Mark, marks, skipped_marks
from mufun_jax.report.palette import IDLE, INK, SERIES, SURFACE, series
from mufun_jax.report.series import Curve, Smoothing, part_curve, parts, share_of, whole_curve
from mufun_jax.report.wording import for_figure, percent, short

_POINTS, _SMALL_POINTS = 2_000, 1_000  # of a curve
_WITH_RAW = 5  # more curves than this are shown smoothed only
_KINDS = {
    "restart": "restart",
    "rollback": "rollback",
    "damaged": "damaged checkpoint",
    "skipped": "skipped step",
}


@dataclass(frozen=True)
class Entry:
    """A line of a legend: a name, its colour among the page's CSS variables, and the traces it stands for."""

    name: str
    colour: str
    traces: tuple[int, ...]


@dataclass(frozen=True)
class Chart:
    """A figure with what stands above it."""

    id: str
    title: str
    note: str
    figure: go.Figure
    legend: tuple[Entry, ...] = ()
    last: str = ""  # the newest value


@dataclass(frozen=True)
class Panel:
    """A small chart of fields of the steps, each with its name in the legend."""

    id: str
    title: str
    note: str
    fields: Mapping[str, str]
    log: bool = False
    share: bool = False  # fractions, shown in percent
    smoothing: Smoothing = "average"
    unit: str = ""


PANELS = (
    Panel("accuracy", "Token accuracy", "target tokens that were the likeliest", {"token_accuracy": ""}, share=True),
    Panel("learning-rate", "Learning rate", "", {"learning_rate": ""}, smoothing="none"),
    Panel(
        "gradients",
        "Gradient norm",
        "before clipping, log scale",
        {
            "gradient_norm": "all",
            "gradient_norm_encoder": "encoder",
            "gradient_norm_connector": "connector",
            "gradient_norm_decoder": "decoder",
            "gradient_norm_lora": "LoRA",
        },
        log=True,
    ),
    Panel("tokens", "Tokens a second", "positions trained on", {"tokens_per_second": ""}, smoothing="median"),
    Panel(
        "audio",
        "Audio a second",
        "seconds of music heard",
        {"audio_seconds_per_second": ""},
        smoothing="median",
        unit=" s",
    ),
    Panel("mfu", "MFU", "model FLOPs over the chips' peak", {"mfu": ""}, share=True, smoothing="median"),
    Panel(
        "seconds",
        "Step time",
        "log scale; without compiling, saving, evaluating",
        {"seconds": ""},
        log=True,
        smoothing="median",
        unit=" s",
    ),
    Panel("memory", "Memory", "of a device", {"memory_gib": ""}, smoothing="none", unit=" GiB"),
    Panel("waiting", "Waiting for data", "share of the step time", {"data_wait_share": ""}, share=True),
    Panel(
        "used",
        "Rows in use",
        "share of a batch that is no padding",
        {"positions_used": "positions", "windows_used": "windows"},
        share=True,
    ),
    Panel(
        "goodput", "Goodput", "steps that count over wall time so far", {"goodput": ""}, share=True, smoothing="none"
    ),
)


def loss_chart(history: History) -> Chart | None:
    """The loss of all stages, evaluation losses, and what happened. None before the first step."""
    steps = history.steps
    if "loss" not in steps.values:
        return None
    numbers = _stage_numbers(history)
    traces: list[go.Scatter] = []
    legend: list[Entry] = []
    last = Curve(np.array([]), np.array([]))
    for part in parts(steps):
        points, loss = share_of(part, steps, _POINTS), steps.values["loss"]
        name, colour = for_figure(steps.stages[part.stage]), series(numbers[part.stage])
        raw = part_curve(steps, loss, part, points, "none")
        last = part_curve(steps, loss, part, points, "average")
        traces.append(_line(raw, f"{name}, a step", colour, faint=True))
        traces.append(_line(last, name, colour, width=2.25))
    if "evaluation_loss" in steps.values:
        found = whole_curve(steps, steps.values["evaluation_loss"], _POINTS, "none")
        traces.append(_points(found))
        legend.append(Entry("evaluation", "mark-evaluation", (len(traces) - 1,)))
    shown, skipped = marks(history), skipped_marks(steps)
    for kind in dict.fromkeys(mark.kind for mark in (*shown, *skipped)):
        traces.append(_marks([mark for mark in (*shown, *skipped) if mark.kind == kind]))
        legend.append(Entry(_KINDS[kind], f"mark-{kind}", (len(traces) - 1,)))
    figure = go.Figure(traces)
    figure.update_layout(_layout(history, shown, height=460, yaxis={"hoverformat": ".4~f", "nticks": 7}))
    figure.update_layout(
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        margin={"t": 30},
        meta={"bands": _bands(history)},
    )
    note = "nats a target token; smoothed, with each step faint behind"
    return Chart("loss", "Loss", note, figure, tuple(legend), short(last.last))


def step_charts(history: History) -> list[Chart]:
    """A chart for all that was measured at each step; what no line has is left out."""
    charts = [_set_chart(history)] if history.steps.loss_of else []
    values = dict(history.steps.values)
    if "data_wait_seconds" in values and "seconds" in values:
        seconds = values["seconds"]
        values["data_wait_share"] = np.clip(values["data_wait_seconds"] / np.where(seconds > 0, seconds, np.nan), 0, 1)
    for panel in PANELS:
        found = {name: values[field] for field, name in panel.fields.items() if field in values}
        if found:
            charts.append(_panel_chart(history, panel, found))
    return charts


def _set_chart(history: History) -> Chart:
    """The loss of each set; those that come in most stages have colours."""
    order = list(dict.fromkeys(each.name for stage in history.stages for each in stage.sets))
    losses = history.steps.loss_of
    names = [name for name in order if name in losses] + sorted(name for name in losses if name not in order)
    panel = Panel("sets", "Loss by set", "of the mixture; smoothed", {})
    return _panel_chart(history, panel, {name: losses[name] for name in names})


def _panel_chart(history: History, panel: Panel, found: Mapping[str, Float64[np.ndarray, " steps"]]) -> Chart:
    steps, newest = history.steps, ""
    traces: list[go.Scatter] = []
    legend: list[Entry] = []
    for number, (name, values) in enumerate(found.items()):
        coloured = number < len(SERIES)
        paint, colour = (series(number), f"series-{number}") if coloured else (IDLE, "idle")
        first = len(traces)
        if panel.smoothing != "none" and len(found) <= _WITH_RAW:
            raw = whole_curve(steps, values, _SMALL_POINTS, "none")
            traces.append(_line(raw, f"{for_figure(name)} a step".strip(), paint, faint=True))
        curve = whole_curve(steps, values, _SMALL_POINTS, panel.smoothing)
        traces.append(_line(curve, for_figure(name) or panel.title, paint, width=1.75))
        legend.append(Entry(name, colour, tuple(range(first, len(traces)))))
        if len(found) == 1:
            newest = percent(curve.last) if panel.share else short(curve.last) + panel.unit
    axis: dict[str, Any] = {"type": "log" if panel.log else "linear", "hoverformat": ".4~g", "nticks": 6}
    if panel.share:
        axis |= {"tickformat": ".0~%", "hoverformat": ".1~%", "rangemode": "tozero"}
    elif not panel.log:
        axis |= {"tickformat": "~g" if panel.id == "learning-rate" else "~s", "rangemode": "tozero"}
    if panel.log:
        axis |= {"dtick": 1 if _decades(found) > 2 else "D2", "tickformat": "~g"}
    figure = go.Figure(traces, _layout(history, marks(history), height=230, yaxis=axis))
    return Chart(panel.id, panel.title, panel.note, figure, tuple(legend) if len(found) > 1 else (), newest)


def _decades(found: Mapping[str, Float64[np.ndarray, " steps"]]) -> float:
    numbers = np.concatenate([values[np.isfinite(values) & (values > 0)] for values in found.values()])
    return float(np.log10(numbers.max() / numbers.min())) if len(numbers) else 0.0


def _line(curve: Curve, name: str, colour: str, *, width: float = 1.0, faint: bool = False) -> go.Scatter:
    return go.Scatter(
        x=curve.x,
        y=curve.y,
        name=name,
        mode="lines" if len(curve.x) > 1 else "markers",
        line={"color": colour, "width": width},
        marker={"color": colour},
        opacity=0.28 if faint else 1.0,
        hoverinfo="x+y+name",
    )


def _points(curve: Curve) -> go.Scatter:
    return go.Scatter(
        x=curve.x,
        y=curve.y,
        name="evaluation",
        mode="markers",
        marker={"color": SURFACE, "size": 6, "line": {"color": INK, "width": 1.5}},
    )


def _marks(shown: Sequence[Mark]) -> go.Scatter:
    """Signs at the upper edge, or for skipped steps at the lower, whose hover text tells what happened."""
    return go.Scatter(
        x=[mark.global_step for mark in shown],
        y=[mark.height for mark in shown],
        yaxis="y2",
        name=shown[0].kind,
        mode="markers",
        marker={"color": shown[0].colour, "size": 9, "symbol": shown[0].symbol, "line": {"width": 0}},
        hovertext=[mark.text for mark in shown],
        hoverinfo="text",
        cliponaxis=False,
    )


def _layout(history: History, shown: Sequence[Mark], *, height: int, yaxis: Mapping[str, Any]) -> dict[str, Any]:
    """What all charts over the steps have: stages as bands, restarts and rollbacks as lines."""
    axis = AXIS_LINES | {"zeroline": False, "automargin": True}
    bands = [
        {
            "type": "rect",
            "yref": "paper",
            **{"x0": band["x0"], "x1": band["x1"], "y0": 0, "y1": 1},
            "fillcolor": band["colour"],
            "opacity": 0.07,
            "line": {"width": 0},
            "layer": "below",
        }
        for band in _bands(history)
    ]
    lines = [
        {
            "type": "line",
            "yref": "paper",
            **{"x0": mark.global_step, "x1": mark.global_step, "y0": 0, "y1": 1},
            "line": {"color": mark.colour, "width": 1, "dash": "dot"},
            "opacity": 0.75,
        }
        for mark in shown
    ]
    first, last = (int(history.steps.global_step[place]) for place in (0, -1))
    edge = max(0.5, 0.004 * (last - first))
    base = base_layout(height, left=44, right=20, top=10, bottom=30)
    return base | {
        "hovermode": "x unified",
        "hoverdistance": 24,
        "hoverlabel": base["hoverlabel"] | {"namelength": 40},
        "xaxis": axis
        | {
            "showgrid": False,
            "showline": True,
            "ticks": "outside",
            "tickformat": ",d" if last < 20_000 else "~s",
            "unifiedhovertitle": {"text": "step %{x:,d}"},
            "nticks": 9,
            "range": [first - edge, last + edge],
        },
        "yaxis": axis | dict(yaxis),
        "shapes": bands + lines,
    }


def _bands(history: History) -> list[dict[str, Any]]:
    """Where each stage lies: from half a step before its first to half a step after its last."""
    return [
        {
            "x0": stage.first - 0.5,
            "x1": stage.last + 0.5,
            "name": for_figure(stage.name),
            "colour": series(stage.number),
        }
        for stage in history.stages
        if stage.first is not None and stage.last is not None
    ]


def _stage_numbers(history: History) -> list[int]:
    """For each of Steps.stages, its place in the curriculum, which gives its colour."""
    numbers = {stage.name: stage.number for stage in history.stages}
    return [numbers[name] for name in history.steps.stages]
