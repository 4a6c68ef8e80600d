"""The page of an experiment."""

from importlib.resources import files

from mufun_jax.experiment.outcome import Outcome, cell_text
from mufun_jax.experiment.outcome_figures import charts
from mufun_jax.report.page_parts import FOLDER, render_page


def outcome_page(outcome: Outcome, made: str) -> str:
    """The page as HTML (see `render_page`). `made` is when, in words."""
    shown, own = charts(outcome.figures), files("mufun_jax.experiment")
    return render_page(
        own / "outcome_page.html",
        shown,
        filters={"cell": cell_text},
        styles=[FOLDER / "findings.css", own / "outcome_page.css"],
        outcome=outcome,
        made=made,
        charts=shown,
    )
