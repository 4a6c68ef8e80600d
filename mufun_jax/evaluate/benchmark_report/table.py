"""The report on a terminal."""

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mufun_jax.evaluate.benchmark_report.report import (
    BenchmarkReport,
    accuracy_text,
    convention_text,
    is_heard,
    share_text,
    unreadable_text,
)
from mufun_jax.evaluate.benchmark_scores.marking import Way
from mufun_jax.evaluate.benchmark_scores.scores import PooledScore, SetScore
from mufun_jax.evaluate.result import Condition
from mufun_jax.evaluate.statistics import Accuracy
from mufun_jax.report.wording import plain

CONDITION_NAMES: dict[Condition, str] = {
    "audio": "the song",
    "text_only": "no audio",
    "other_song": "other song",
    "silence": "silence",
}
WAY_NAMES: dict[Way, str] = {
    "generated": "generated",
    "letter_log_probability": "likeliest letter",
    "text_log_probability": "likeliest text",
    "text_log_probability_per_token": "likeliest text per token",
    "constrained": "constrained",
}
_CONDITION_HEADINGS: dict[Condition, str] = {
    "audio": "the\nsong",
    "text_only": "no\naudio",
    "other_song": "other\nsong",
    "silence": "si-\nlence",
}
_BEST = "MuFun-Base"  # the published column that a terminal has room for


def report_tables(report: BenchmarkReport) -> RenderableType:
    """Accuracy in percent by set and group, with baselines; then by every way; then signatures and warnings."""
    parts: list[RenderableType] = [_main_table(report)]
    if len(report.scores.ways) > 1:
        parts.append(_ways_table(report))
    for signature in report.signatures:
        parts.append(Text(plain(f"{signature.name}: {signature.verdict} ({signature.reason})")))
    parts += [Text(plain(f"warning: {warning}"), style="yellow") for warning in report.warnings]
    return Group(*parts)


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("set", no_wrap=True)
    return table


def _main_table(report: BenchmarkReport) -> Table:
    conditions = report.scores.conditions[1:] if "audio" in report.scores.conditions else report.scores.conditions
    table = _table()
    headings = ["n", "acc.", "95 %", *(_CONDITION_HEADINGS[each] for each in conditions)]
    headings += ["best\nletter", "heard", "un-\nread", "publ.\nconv."]
    headings += [_BEST.replace("-", "-\n")] if report.published else []
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    best = next((each for each in report.published if each.model == _BEST), None)

    def row(score: SetScore | PooledScore, name: str, published: float | None, unread: str) -> list[str]:
        ways = score.ways if isinstance(score, SetScore) else score.average
        found = [escape(plain(name)), f"{score.n}", accuracy_text(ways.get("generated"))]
        found.append(_interval(ways.get("generated")))
        for each in conditions:
            found.append(accuracy_text(score.baselines[each].get("generated")) if each in score.baselines else "–")
        found += [share_text(score.majority), _yes(is_heard(score)), unread, convention_text(score)]
        return found + ([share_text(published)] if best else [])

    for group in report.scores.groups:
        for each in (each for each in report.scores.sets if each.group == group.name):
            published = best.sets.get(each.name) if best else None
            table.add_row(*row(each, each.name, published, unreadable_text(each)))
        if len(group.sets) > 1:
            mean = best.groups.get(group.name) if best else None
            table.add_row(*row(group, f"{group.name} mean", mean, ""), style="dim")
        table.add_section()
    overall = report.scores.overall
    mean = row(overall, f"mean of {len(overall.sets)}", best.average if best else None, "")
    table.add_row(*mean, style="bold")
    micro = overall.micro.get("generated")
    table.add_row("all questions", f"{overall.n}", accuracy_text(micro), _interval(micro))
    return table


def _ways_table(report: BenchmarkReport) -> Table:
    table = _table()
    for way in report.scores.ways:
        name = WAY_NAMES[way]
        table.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for each in report.scores.sets:
        table.add_row(escape(plain(each.name)), *(accuracy_text(each.ways.get(way)) for way in report.scores.ways))
    table.add_section()
    overall = report.scores.overall
    means = (accuracy_text(overall.average.get(way)) for way in report.scores.ways)
    table.add_row(f"mean of {len(overall.sets)}", *means, style="bold")
    return table


def _interval(accuracy: Accuracy | None) -> str:
    """`59–67`, clustered by song: whole points, for want of room."""
    return "–" if accuracy is None else f"{100 * accuracy.clustered[0]:.0f}–{100 * accuracy.clustered[1]:.0f}"


def _yes(heard: bool | None) -> str:
    return "–" if heard is None else "yes" if heard else "no"
