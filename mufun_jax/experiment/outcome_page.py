"""The page of an experiment: one HTML file that needs nothing else, no network either."""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

import plotly.io
from jinja2 import Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mufun_jax.experiment.outcome import Outcome, cell_text
from mufun_jax.experiment.outcome_figures import charts
from mufun_jax.report.figures import Chart
from mufun_jax.report.palette import DARK, SERIES, css_variables
from mufun_jax.report.wording import plain

_STYLES = (("report", "page.css"), ("evaluate", "benchmark_page.css"))
_SCRIPT = ("evaluate", "benchmark_page.js")


def outcome_page(outcome: Outcome, made: str) -> str:
    """The page as HTML. `made` is when, in words.

    Names of tasks and paths may be anyone's: they are escaped here, and the page's policy lets no script run but its
    own two, and nothing be fetched.
    """
    package = files("mufun_jax")
    read = lambda folder, name: (package / folder / name).read_text(encoding="utf-8")  # noqa: E731
    library, script = get_plotlyjs(), read(*_SCRIPT)
    assert "</script" not in library
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_printable)
    environment.filters |= {"cell": cell_text, "is_number": lambda cell: isinstance(cell, int | float) or cell is None}
    template = environment.from_string(read("experiment", "outcome_page.html"))
    shown = charts(outcome.figures)
    return template.render(
        outcome=outcome,
        made=made,
        charts=shown,
        colours=len(SERIES),
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
        style=Markup("".join(read(*style) for style in _STYLES)),
        figures=_figures_json(shown),
        library=Markup(library),
        script=Markup(script),
        hashes=[_hash(library), _hash(script)],
    )


def _printable(value: Any) -> Any:
    return plain(value) if type(value) is str else value


def _figures_json(shown: list[Chart]) -> Markup:
    """Data of the figures for a script element: no `<`, so that none can end it."""
    figures = {chart.id: json.loads(str(plotly.io.to_json(chart.figure, validate=False))) for chart in shown}
    text = json.dumps({"figures": figures, "dark": DARK}, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
