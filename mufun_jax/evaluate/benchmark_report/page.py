"""The page of a benchmark's run: one HTML file that needs nothing else, no network either."""

from importlib.resources import files

from mufun_jax.evaluate.benchmark_report.figures import charts
from mufun_jax.evaluate.benchmark_report.report import (
    BenchmarkReport,
    accuracy_text,
    always_text,
    interval_text,
    is_heard,
    share_text,
    unreadable_text,
)
from mufun_jax.evaluate.benchmark_report.table import CONDITION_NAMES, WAY_NAMES
from mufun_jax.report.page import Tile
from mufun_jax.report.page_parts import FOLDER, render_page

_LONGEST_TEXT = 1_200  # characters of a question or reply among the examples


def benchmark_page(report: BenchmarkReport, made: str) -> str:
    """The page as HTML (see `render_page`). `made` is when, in words."""
    shown, own = charts(report), files("mufun_jax.evaluate.benchmark_report")
    return render_page(
        own / "page.html",
        shown,
        filters={
            "accuracy": accuracy_text,
            "always": always_text,
            "interval": interval_text,
            "share": share_text,
            "heard": is_heard,
            "unreadable": unreadable_text,
            "shortened": shortened,
        },
        styles=[FOLDER / "findings.css", own / "page.css"],
        report=report,
        scores=report.scores,
        made=made,
        tiles=tiles(report),
        charts={chart.id: chart for chart in shown},
        ways=WAY_NAMES,
        conditions={condition: CONDITION_NAMES[condition] for condition in report.scores.overall.baselines},
    )


def tiles(report: BenchmarkReport) -> list[Tile]:
    """What is asked first of a run; what is not known is left out."""
    overall, sets = report.scores.overall, report.scores.sets
    found = []
    if generated := overall.average.get("generated"):
        more = f"{interval_text(generated)}, {len(overall.sets)} sets"
        found.append(Tile("mean accuracy", f"{accuracy_text(generated)} %", more))
    if micro := overall.micro.get("generated"):
        found.append(Tile("all questions", f"{accuracy_text(micro)} %", f"{interval_text(micro)}, n {micro.n:,}"))
    if overall.published_convention is not None:
        best = report.published[0] if report.published else None
        more = f"{best.model} {share_text(best.average)} %" if best else "as papers count"
        found.append(Tile("published convention", f"{share_text(overall.published_convention)} %", more))
    if silent := overall.baselines.get("text_only", {}).get("generated"):
        found.append(Tile("no audio", f"{accuracy_text(silent)} %", f"{interval_text(silent)}, n {silent.n:,}"))
    if overall.majority is not None:
        found.append(Tile("best letter", f"{share_text(overall.majority)} %", "one letter for every set's questions"))
    replies, unreadable = sum(each.replies for each in sets), sum(each.unreadable for each in sets)
    if replies:
        found.append(
            Tile("unreadable", f"{share_text(unreadable / replies)} %", f"{unreadable:,} of {replies:,} replies")
        )
    failed = sum(each.errors + each.bad_rows for each in sets)
    found.append(Tile("errors", f"{failed:,}", f"of {sum(each.n for each in sets):,} questions"))
    return found


def shortened(text: str) -> str:
    """A question or reply, the rest of a long one counted."""
    rest = len(text) - _LONGEST_TEXT
    return text if rest <= 0 else f"{text[:_LONGEST_TEXT]} … ({rest:,} more characters)"
