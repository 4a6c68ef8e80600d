"""What every page is made of: one HTML file that needs nothing else, no network either.

A page's template extends `frame.html`, and takes its parts from `cards.html`. `figures.js` draws its figures.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import plotly.io
from jinja2 import DictLoader, Environment
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mufun_jax.report.figures import Chart
from mufun_jax.report.palette import DARK, SERIES, css_variables
from mufun_jax.report.wording import plain

FOLDER = files("mufun_jax.report")
_SHARED = ("frame.html", "cards.html")


def render_page(
    template: Traversable,
    charts: Sequence[Chart],
    /,
    *,
    filters: Mapping[str, Callable[..., object]],
    styles: Sequence[Traversable] = (),
    script: Traversable | None = None,
    **shown: object,
) -> str:
    """The page as HTML: a template that extends `frame.html`, with `shown` and `filters`.

    `styles` come after `page.css`; with `script` the page draws its figures (see `figures.js`), else they stand still.
    All text is escaped and made printable: names in files may be anyone's. The page's policy lets no script run but its
    own two, and nothing be fetched.
    """
    library = get_plotlyjs()
    assert "</script" not in library
    own = (FOLDER / "figures.js").read_text(encoding="utf-8")
    own += "drawFigures();\n" if script is None else script.read_text(encoding="utf-8")
    parts = {name: (FOLDER / name).read_text(encoding="utf-8") for name in _SHARED}
    environment = Environment(
        loader=DictLoader(parts), autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    environment.filters |= filters
    return environment.from_string(template.read_text(encoding="utf-8")).render(
        **shown,
        colours=len(SERIES),
        light=Markup(css_variables(dark=False)),
        dark=Markup(css_variables(dark=True)),
        style=Markup("".join(style.read_text(encoding="utf-8") for style in (FOLDER / "page.css", *styles))),
        figures=_figures_json(charts),
        library=Markup(library),
        script=Markup(own),
        hashes=[_script_hash(library), _script_hash(own)],
    )


def _figures_json(charts: Sequence[Chart]) -> Markup:
    """Data of the figures for a script element: no `<`, so that none can end it."""
    figures = {chart.id: json.loads(str(plotly.io.to_json(chart.figure, validate=False))) for chart in charts}
    text = json.dumps({"figures": figures, "dark": DARK}, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _script_hash(script: str) -> str:
    """As the page's content security policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _printable(value: Any) -> Any:
    return plain(value) if type(value) is str else value
