"""The report of a benchmark's run, as data: all that the table, the text, the JSON and the page are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mufun_jax.evaluate.benchmark_question import BadRow
from mufun_jax.evaluate.benchmark_report.examples import Example, examples
from mufun_jax.evaluate.benchmark_report.run_warnings import run_warnings
from mufun_jax.evaluate.benchmark_scores.scores import PooledScore, Scores, SetScore, score_results
from mufun_jax.evaluate.benchmark_scores.signatures import Signature, signatures
from mufun_jax.evaluate.benchmarks.published import published
from mufun_jax.evaluate.result import Result
from mufun_jax.evaluate.statistics import Accuracy


@dataclass(frozen=True)
class PublishedScores:
    """What was published of one model, over the very sets of the run, so that the means can be compared."""

    model: str
    average: float
    groups: Mapping[str, float]
    sets: Mapping[str, float]


@dataclass(frozen=True)
class BenchmarkReport:
    """`model` is what its user calls it. `published` is empty for benchmarks but MuCUE."""

    model: str
    scores: Scores
    signatures: tuple[Signature, ...]
    warnings: tuple[str, ...]
    examples: tuple[Example, ...]
    published: tuple[PublishedScores, ...]
    published_source: str
    model_digests: tuple[str, ...]
    code_digests: tuple[str, ...]


def make_report(
    results: Sequence[Result],
    bad_rows: Sequence[BadRow],
    *,
    benchmark: str,
    groups: Mapping[str, str],
    model: str,
    warnings: Sequence[str] = (),
) -> BenchmarkReport:
    """Scores a run and says what is to be said of it. `groups` is the benchmark's; `warnings` come before our own.

    Raises UserError where the results cannot be counted.
    """
    scores = score_results(results, bad_rows, benchmark=benchmark, groups=groups)
    return BenchmarkReport(
        model=model,
        scores=scores,
        signatures=signatures(scores, results),
        warnings=(*warnings, *run_warnings(scores, results, bad_rows)),
        examples=examples(results),
        published=_published(scores) if benchmark == "mucue" else (),
        published_source=published().source if benchmark == "mucue" else "",
        model_digests=tuple(sorted({result.model_digest for result in results})),
        code_digests=tuple(sorted({result.code_digest for result in results})),
    )


def is_heard(score: SetScore | PooledScore) -> bool | None:
    """Whether the whole interval of the generated answers lies above every baseline, the best letter among them.

    None where no other condition was run, or there is nothing to tell.
    """
    ways = score.ways if isinstance(score, SetScore) else score.average
    if not score.baselines or "generated" not in ways or score.majority is None:
        return None
    silent = [by_way["generated"].accuracy for by_way in score.baselines.values() if "generated" in by_way]
    return ways["generated"].clustered[0] > max(score.majority, *silent)


def report_json(report: BenchmarkReport, made: str) -> dict[str, Any]:
    """`report.json`: accuracies are fractions, intervals pairs. `made` is when, in words."""
    return {"made": made, "benchmark": report.scores.benchmark} | asdict(report)


def accuracy_text(accuracy: Accuracy | None) -> str:
    """`63.2`, in percent; a dash for nothing."""
    return "–" if accuracy is None else share_text(accuracy.accuracy)


def share_text(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"


def interval_text(accuracy: Accuracy | None) -> str:
    """`58.9–67.3`: the interval clustered by song."""
    return "–" if accuracy is None else f"{100 * accuracy.clustered[0]:.1f}–{100 * accuracy.clustered[1]:.1f}"


def convention_text(score: SetScore | PooledScore) -> str:
    """The accuracy by the published convention."""
    if isinstance(score, SetScore):
        return accuracy_text(score.published_convention)
    return share_text(score.published_convention)


def unreadable_text(score: SetScore) -> str:
    """The share of replies in which no letter could be read."""
    return "–" if score.replies == 0 else share_text(score.unreadable / score.replies)


def always_text(score: SetScore) -> str:
    """`A 28.1, B 24.0, …`: what one letter for all questions scores."""
    return ", ".join(f"{letter} {share_text(share)}" for letter, share in score.always.items()) or "–"


def _published(scores: Scores) -> tuple[PublishedScores, ...]:
    table = {each.name: each for each in published().averaged}
    of = [name for name in scores.overall.sets if name in table]
    if not of:
        return ()
    found = []
    for model in published().models:
        sets = {name: table[name].accuracy[model] for name in of}
        groups: dict[str, list[float]] = {}
        for name, value in sets.items():
            groups.setdefault(table[name].group, []).append(value)
        means = {group: sum(values) / len(values) for group, values in groups.items()}
        found.append(PublishedScores(model, sum(sets.values()) / len(sets), means, sets))
    return tuple(sorted(found, key=lambda each: -each.average))
