"""The page of an experiment: one HTML file that needs nothing else, no network either."""

from importlib.resources import files

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from mufun_jax.experiment.outcome import Outcome, cell_text
from mufun_jax.experiment.outcome_figures import charts
from mufun_jax.report.page_parts import figures_json, page_environment, script_hash
from mufun_jax.report.palette import SERIES, css_variables

_STYLES = (("report", "page.css"), ("evaluate/benchmark_report", "page.css"))
_SCRIPT = ("evaluate/benchmark_report", "page.js")


def outcome_page(outcome: Outcome, made: str) -> str:
    """The page as HTML. `made` is when, in words.

    Names of tasks and paths may be anyone's: they are escaped here, and the page's policy lets no script run but its
    own two, and nothing be fetched.
    """
    package = files("mufun_jax")
    read = lambda folder, name: (package / folder / name).read_text(encoding="utf-8")  # noqa: E731
    library, script = get_plotlyjs(), read(*_SCRIPT)
    assert "</script" not in library
    environment = page_environment()
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
        figures=figures_json(shown),
        library=Markup(library),
        script=Markup(script),
        hashes=[script_hash(library), script_hash(script)],
    )
