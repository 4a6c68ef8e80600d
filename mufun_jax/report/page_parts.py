"""What every page is made of: templates that escape, data of figures, and the hashes of its scripts."""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import plotly.io
from jinja2 import Environment
from markupsafe import Markup

from mufun_jax.report.figures import Chart
from mufun_jax.report.palette import DARK
from mufun_jax.report.wording import plain


def page_environment() -> Environment:
    """Templates in which all text is escaped, and made printable."""
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_printable)


def figures_json(charts: Sequence[Chart]) -> Markup:
    """Data of the figures for a script element: no `<`, so that none can end it."""
    figures = {chart.id: json.loads(str(plotly.io.to_json(chart.figure, validate=False))) for chart in charts}
    text = json.dumps({"figures": figures, "dark": DARK}, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def script_hash(script: str) -> str:
    """As the page's content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _printable(value: Any) -> Any:
    return plain(value) if type(value) is str else value
