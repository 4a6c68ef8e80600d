"""The report as Markdown, for a model card or an issue."""

import re
from collections.abc import Iterable, Sequence

from mufun_jax.evaluate.benchmark_report.report import (
    BenchmarkReport,
    accuracy_text,
    always_text,
    convention_text,
    interval_text,
    is_heard,
    share_text,
    unreadable_text,
)
from mufun_jax.evaluate.benchmark_report.table import CONDITION_NAMES, WAY_NAMES
from mufun_jax.evaluate.benchmark_scores.scores import PooledScore, SetScore
from mufun_jax.report.wording import plain

_MARKUP = re.compile(r"([\\`*_\[\]<>|~&$@]|(?<=^)[#+=>-])")  # what Markdown reads as more than a character


def report_markdown(report: BenchmarkReport, made: str) -> str:
    """Tables of accuracy in percent, what was noticed, and a few replies. Strangers' texts are escaped."""
    scores = report.scores
    parts = [f"# {_text(scores.benchmark)}: {_text(report.model)}", made]
    if report.warnings:
        parts.append("\n".join(f"- **warning:** {_text(warning)}" for warning in report.warnings))
    parts += ["## Accuracy", _accuracy_note(report), _accuracy_table(report)]
    if scores.sets:
        parts += ["## By every way to an answer", _ways_table(report)]
    parts.append("## Failure signatures")
    parts += [
        f"**{signature.name}**: {signature.verdict}. {_text(signature.reason)}"
        + "".join(f"\n- {_code(id)}: {_text(fault)}" for id, fault in signature.examples)
        for signature in report.signatures
    ]
    if report.examples:
        parts.append("## Examples")
        parts += [
            f"- **{example.kind}** {_code(example.id)} ({_text(example.set)}), right: {example.expected}, "
            f"read: {example.read or 'nothing'}\n  - {_code(example.prompt)}\n  - {_code(example.reply)}"
            for example in report.examples
        ]
    return "\n\n".join(parts) + "\n"


def _accuracy_note(report: BenchmarkReport) -> str:
    note = (
        "In percent, of the generated answers. Intervals are 95 %, clustered by song. Errors, bad rows and unreadable "
        "replies are wrong. Heard: the whole interval lies above every baseline. Published convention: the judge's "
        "letter if a judge was asked, else ours; rows without a reply left out."
    )
    if report.published:
        note += f" Published scores: {_text(report.published_source)}, over the same sets."
    return note


def _accuracy_table(report: BenchmarkReport) -> str:
    overall = report.scores.overall
    conditions = list(overall.baselines)
    heading = ["set", "n", "accuracy", "95 %", *(CONDITION_NAMES[condition] for condition in conditions), "best letter"]
    heading += ["heard", "unreadable", "published convention", *(_text(each.model) for each in report.published)]

    def cells(
        score: SetScore | PooledScore, name: str, unreadable: str, published: Iterable[float | None]
    ) -> list[str]:
        ways = score.ways if isinstance(score, SetScore) else score.average
        silent = [score.baselines.get(condition, {}).get("generated") for condition in conditions]
        heard = is_heard(score)
        return [
            name,
            f"{score.n:,}",
            accuracy_text(ways.get("generated")),
            interval_text(ways.get("generated")),
            *map(accuracy_text, silent),
            share_text(score.majority),
            "–" if heard is None else "yes" if heard else "no",
            unreadable,
            convention_text(score),
            *map(share_text, published),
        ]

    rows = []
    for group in report.scores.groups:
        for each in (each for each in report.scores.sets if each.group == group.name):
            name = _text(each.name) + ("" if each.averaged else " (not averaged)")
            rows.append(
                cells(each, name, unreadable_text(each), [model.sets.get(each.name) for model in report.published])
            )
        if len(group.sets) > 1:
            means = [model.groups.get(group.name) for model in report.published]
            rows.append(cells(group, f"*{_text(group.name)} mean*", "", means))
    name = f"**mean of {len(overall.sets)} sets**"
    rows.append(cells(overall, name, "", [model.average for model in report.published]))
    micro = overall.micro.get("generated")
    rows.append(["all questions", f"{overall.n:,}", accuracy_text(micro), interval_text(micro)])
    return _table(heading, rows)


def _ways_table(report: BenchmarkReport) -> str:
    scores = report.scores
    heading = ["set", *(WAY_NAMES[way] for way in scores.ways), "one letter for all", "errors", "bad rows"]

    def shown(score: SetScore | PooledScore) -> list[str]:
        by_way = score.ways if isinstance(score, SetScore) else score.average
        return [f"{accuracy_text(by_way.get(way))} ({interval_text(by_way.get(way))})" for way in scores.ways]

    rows = [
        [_text(each.name), *shown(each), always_text(each), str(each.errors), str(each.bad_rows)]
        for each in scores.sets
    ]
    rows.append([f"**mean of {len(scores.overall.sets)} sets**", *shown(scores.overall)])
    return _table(heading, rows)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """All but the first column to the right; a short row is filled up."""
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)]]
    lines += [[*row, *[""] * (len(heading) - len(row))] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(text: str) -> str:
    """On one line, as it is: nothing in it is markup."""
    return _MARKUP.sub(r"\\\1", plain(" ".join(text.split())))


def _code(text: str) -> str:
    """On one line, as code, in which nothing is a link or a mention; an empty text says so."""
    line = plain(" ".join(text.split()))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if line else "(empty)"
