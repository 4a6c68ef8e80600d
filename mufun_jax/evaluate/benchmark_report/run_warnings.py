"""What a reader of a benchmark's scores must know before believing them, a line each."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from mufun_jax.evaluate.benchmark_question import BadRow
from mufun_jax.evaluate.benchmark_scores.scores import Scores
from mufun_jax.evaluate.benchmarks.published import published
from mufun_jax.evaluate.result import Result

_SHOWN = 3  # of a kind, in one line
_MANY_UNREADABLE = 0.01  # of the replies
_LONGEST_NAME = 200  # characters of a message or name in a line


def run_warnings(scores: Scores, results: Sequence[Result], bad_rows: Sequence[BadRow]) -> tuple[str, ...]:
    """Rows and questions that failed, what could not be read, what was not heard, and what is missing."""
    return (
        *_bad_rows(bad_rows),
        *_errors(scores, results),
        *_unreadable(scores),
        *_orders(scores),
        *_cut(scores),
        *_several(results),
        *(_missing(scores) if scores.benchmark == "mucue" else ()),
    )


def _bad_rows(bad_rows: Sequence[BadRow]) -> Iterable[str]:
    if bad_rows:
        yield f"{_count(bad_rows, 'row')} could not be made a question and {_are(bad_rows)} wrong: " + _most(
            Counter(row.reason for row in bad_rows)
        )


def _errors(scores: Scores, results: Sequence[Result]) -> Iterable[str]:
    failed = sum(each.errors for each in scores.sets)
    if failed:
        said = Counter(result.error for result in results if result.condition == "audio" and result.error)
        broken = failed - len({result.id for result in results if result.condition == "audio" and result.error})
        why = [_most(said)] if said else []
        why += [f"a log-probability that is no number ({broken:,})"] if broken > 0 else []
        yield f"{failed:,} {_questions(failed)} ended with an error, which is wrong: {'; '.join(why)}"


def _unreadable(scores: Scores) -> Iterable[str]:
    replies, unreadable = (sum(getattr(each, name) for each in scores.sets) for name in ("replies", "unreadable"))
    if replies and unreadable > _MANY_UNREADABLE * replies:
        worst = sorted(scores.sets, key=lambda each: -each.unreadable)[:_SHOWN]
        where = ", ".join(f"{_named(each.name)} {each.unreadable:,}" for each in worst if each.unreadable)
        yield (
            f"no letter could be read in {unreadable:,} of {replies:,} replies ({100 * unreadable / replies:.1f} %), "
            f"which are wrong: {where}"
        )


def _orders(scores: Scores) -> Iterable[str]:
    if scores.incomplete:
        yield (
            f"{scores.incomplete:,} {_questions(scores.incomplete)} {_was(scores.incomplete)} "
            f"asked in fewer than {scores.orders} orders of the options: the run is not finished"
        )
    ties = Counter[str]()
    for each in scores.sets:
        ties.update(each.ties)
    for way, count in ties.items():
        yield f"by {way}, several options were the likeliest in {count:,} {_questions(count)}, which are wrong"


def _cut(scores: Scores) -> Iterable[str]:
    cut, seconds = (sum(getattr(each, name) for each in scores.sets) for name in ("questions_cut", "seconds_dropped"))
    if cut:
        yield (
            f"the audio of {cut:,} {_questions(cut)} was longer than the model hears: on average "
            f"{seconds / cut:,.0f} s of each were not heard"
        )


def _several(results: Sequence[Result]) -> Iterable[str]:
    for name, what in (("model_digest", "models"), ("code_digest", "versions of the code")):
        found = {getattr(result, name) for result in results}
        if len(found) > 1:
            yield f"the results are of {len(found)} {what}; run it anew into an empty file to have one"


def _missing(scores: Scores) -> Iterable[str]:
    """MuCUE's sets that were not asked, or not whole, by the published numbers of questions."""
    asked: Mapping[str, int] = {each.name: each.n for each in scores.sets}
    sets = published().averaged
    absent = [each.name for each in sets if each.name not in asked]
    if absent:
        yield f"the mean is over {len(sets) - len(absent)} of MuCUE's {len(sets)} sets; not asked: {', '.join(absent)}"
    other = [each for each in published().sets if each.name in asked and asked[each.name] != each.questions]
    if other:
        shown = ", ".join(f"{each.name} {asked[each.name]:,} of {each.questions:,}" for each in other[:_SHOWN])
        more = f", and {len(other) - _SHOWN} more" if len(other) > _SHOWN else ""
        yield f"{_sets(len(other))} another number of questions than published: {shown}{more}"


def _most(counts: Counter[str]) -> str:
    shown = [f"{_named(text)} ({count:,})" for text, count in counts.most_common(_SHOWN)]
    more = len(counts) - len(shown)
    return "; ".join(shown) + (f"; and {more:,} other reasons" if more > 0 else "")


def _named(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]} …"


def _count(things: Sequence[object], noun: str) -> str:
    return f"{len(things):,} {noun}" if len(things) == 1 else f"{len(things):,} {noun}s"


def _are(things: Sequence[object]) -> str:
    return "is" if len(things) == 1 else "are"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _sets(count: int) -> str:
    return "1 set has" if count == 1 else f"{count} sets have"


def _questions(count: int) -> str:
    return "question" if count == 1 else "questions"
