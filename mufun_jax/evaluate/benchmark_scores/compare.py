"""Two runs on the same questions, compared pair by pair."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.markup import escape
from rich.table import Table

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_scores.marking import WAYS, Way, mark
from mufun_jax.evaluate.result import Result
from mufun_jax.evaluate.statistics import Interval, holm, mcnemar, paired_difference
from mufun_jax.report.wording import plain

_ALL = "all questions"
_HEADING = 6  # characters of a run's name in the table


@dataclass(frozen=True)
class PairedScore:
    """One set, or all questions: how many both runs have right, only one of them, or neither.

    `p` is McNemar's, `p_holm` the same held up against all sets that were looked at. Both take questions as
    independent. `difference` is the second's accuracy less the first's, and its `interval` (95 %) is clustered by song,
    None for one song: where the two disagree, songs have several questions each, and the interval is to be believed.
    """

    name: str
    n: int
    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    p_holm: float
    difference: float
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """`unmatched_first` and `unmatched_second` count questions that the other run lacks; they are in no score."""

    way: Way
    sets: tuple[PairedScore, ...]
    overall: PairedScore
    unmatched_first: int
    unmatched_second: int


def compare(first: Sequence[Result], second: Sequence[Result], way: Way = "generated") -> Comparison:
    """Compares what both runs answered with the song, options in the benchmark's own order, by one way.

    Raises UserError where the runs share no question, were not asked for that way, or differ in a question's right
    answer: then the benchmark is not the same.
    """
    left, right = _own_order(first, "the first run"), _own_order(second, "the second run")
    shared = [id for id in left if id in right]
    if not shared:
        raise UserError("the two runs share no question; compare runs of the same benchmark")
    for id in shared:
        if left[id].gold != right[id].gold or left[id].set != right[id].set:
            raise UserError(
                f"question {id!r} is of set {left[id].set!r} with answer {left[id].gold} in the first run and of "
                f"{right[id].set!r} with {right[id].gold} in the second; compare runs of the same benchmark"
            )
    for name, run in (("first", left), ("second", right)):
        if not any(_has(run[id], way) for id in shared):
            raise UserError(f"the {name} run has no answers by {way!r}; the ways are: {', '.join(WAYS)}")
    marks = {id: (_is_right(left[id], way), _is_right(right[id], way)) for id in shared}
    names = list(dict.fromkeys(left[id].set for id in shared))
    sets = [_paired(name, {id: marks[id] for id in shared if left[id].set == name}, left) for name in names]
    adjusted = holm([each.p for each in sets])
    return Comparison(
        way,
        tuple(replace(each, p_holm=p) for each, p in zip(sets, adjusted, strict=True)),
        _paired(_ALL, marks, left),
        len(left) - len(shared),
        len(right) - len(shared),
    )


def comparison_table(comparison: Comparison, first: str, second: str) -> Table:
    """A line a set; the difference is that of the second run over the first, in points."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("set", no_wrap=True)
    headings = (
        "n",
        "both\nright",
        f"only\n{_heading(first)}",
        f"only\n{_heading(second)}",
        "nei-\nther",
        "difference\n(95 %)",
        "p",
        "p\nHolm",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in (*comparison.sets, comparison.overall):
        if each is comparison.overall:
            table.add_section()
        counts = (each.n, each.both, each.only_first, each.only_second, each.neither)
        adjusted = "" if each is comparison.overall else _p(each.p_holm)
        table.add_row(escape(plain(each.name)), *map(str, counts), _difference(each), _p(each.p), adjusted)
    return table


def _heading(name: str) -> str:
    shown = plain(name.replace("\n", " "))
    return escape(shown if len(shown) <= _HEADING else f"{shown[: _HEADING - 1]}…")


def _own_order(results: Sequence[Result], name: str) -> dict[str, Result]:
    found: dict[str, Result] = {}
    for result in results:
        if result.condition == "audio" and result.rotation == 0:
            if result.id in found:
                raise UserError(f"{name} answers question {result.id!r} twice; take one of the two lines out")
            found[result.id] = result
    return found


def _has(result: Result, way: Way) -> bool:
    if way == "generated":
        return True
    return (result.constrained if way == "constrained" else result.log_probabilities) is not None


def _is_right(result: Result, way: Way) -> bool:
    return mark([result], [way]).values[way] == 1.0


def _paired(name: str, marks: Mapping[str, tuple[bool, bool]], results: Mapping[str, Result]) -> PairedScore:
    pairs = list(marks.values())
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    found = paired_difference([float(b) - float(a) for a, b in pairs], [results[id].song for id in marks])
    p = mcnemar(only_first, only_second)
    return PairedScore(
        name=name,
        n=len(pairs),
        both=pairs.count((True, True)),
        only_first=only_first,
        only_second=only_second,
        neither=pairs.count((False, False)),
        p=p,
        p_holm=p,
        difference=found.mean,
        interval=found.interval,
    )


def _difference(score: PairedScore) -> str:
    points = f"{100 * score.difference:+.1f}"
    if score.interval is None:
        return points
    return f"{points} ({100 * score.interval[0]:+.0f}, {100 * score.interval[1]:+.0f})"  # for want of room


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
