"""From the results of a run to scores: of each set, of each group, and of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import BadRow
from mufun_jax.evaluate.benchmark_scores.marking import WAYS, Marked, Way, mark, published_value, ways_of
from mufun_jax.evaluate.benchmarks.published import published
from mufun_jax.evaluate.result import CONDITIONS, Condition, Result
from mufun_jax.evaluate.statistics import Accuracy, accuracy_of, letter_shares

ByWay = Mapping[Way, Accuracy]


@dataclass(frozen=True)
class SetScore:
    """One set. `n` counts its bad rows, which are wrong by every way, as questions with an error are.

    `ways` has the accuracy with the set's own audio; `baselines` that of other conditions, where each has its own n and
    bad rows do not count. `always` is what one letter for everything scores, in the order in which options were first
    shown, and `majority` the best of them. `published_convention` is None where no question had a reply.
    `unreadable` counts replies, of `replies` in all orders of the options; `ties` questions. `averaged` is whether the
    set counts in the averages.
    """

    name: str
    group: str
    averaged: bool
    n: int
    bad_rows: int
    errors: int
    replies: int
    unreadable: int
    ties: Mapping[Way, int]
    questions_cut: int
    seconds_dropped: float
    ways: ByWay
    published_convention: Accuracy | None
    baselines: Mapping[Condition, ByWay]
    always: Mapping[str, float]
    majority: float


@dataclass(frozen=True)
class PooledScore:
    """Several sets: the plain mean over them, and the mean over all their questions (`micro`).

    `published_convention` is the plain mean over the sets that have one. Sets that are only listed do not count.
    """

    name: str
    sets: tuple[str, ...]
    n: int
    average: ByWay
    micro: ByWay
    published_convention: float | None
    baselines: Mapping[Condition, ByWay]
    majority: float | None


@dataclass(frozen=True)
class Scores:
    """A whole run. `orders` is the number of orders in which options were shown, `incomplete` counts questions with
    fewer than that and than they have options."""

    benchmark: str
    orders: int
    incomplete: int
    ways: tuple[Way, ...]
    conditions: tuple[Condition, ...]
    sets: tuple[SetScore, ...]
    groups: tuple[PooledScore, ...]
    overall: PooledScore


@dataclass(frozen=True)
class _Table:
    """What was earned in one set: the marked questions by condition, their first results, and its bad rows."""

    marked: Mapping[Condition, Sequence[Marked]]
    first: Sequence[Result]
    bad: Sequence[BadRow]


def score_results(
    results: Sequence[Result], bad_rows: Sequence[BadRow], *, benchmark: str, groups: Mapping[str, str]
) -> Scores:
    """Scores a run. `groups` names the group of each set, in the order of the report.

    Raises UserError where two results are of the same question, condition and order, or one's order is none.
    """
    questions = _by_question(results)
    ways = ways_of(results)
    group_of = _group_of(results, bad_rows, groups)
    tables = {name: _table(name, questions, bad_rows, ways) for name in group_of}
    listed_only = {each.name for each in published().sets if not each.averaged} if benchmark == "mucue" else set()
    sets = tuple(_set_score(name, group_of[name], name not in listed_only, table) for name, table in tables.items())
    averaged = {each.name: tables[each.name] for each in sets if each.averaged}
    most = max((len(orders) for orders in questions.values()), default=0)
    return Scores(
        benchmark=benchmark,
        orders=most,
        incomplete=sum(len(orders) < min(most, len(orders[0].option_order)) for orders in questions.values()),
        ways=ways,
        conditions=tuple(condition for condition in CONDITIONS if any(key[0] == condition for key in questions)),
        sets=sets,
        groups=tuple(
            _pooled(group, {name: table for name, table in averaged.items() if group_of[name] == group}, sets)
            for group in dict.fromkeys(group_of.values())
        ),
        overall=_pooled("all", averaged, sets),
    )


def _by_question(results: Sequence[Result]) -> dict[tuple[Condition, str], list[Result]]:
    """The results of each question under each condition, in the order of their rotations."""
    seen: set[tuple[Condition, str, int]] = set()
    questions: dict[tuple[Condition, str], list[Result]] = {}
    for result in results:
        key = (result.condition, result.id, result.rotation)
        if key in seen:
            raise UserError(
                f"results: question {result.id!r} is answered twice under {result.condition}, rotation "
                f"{result.rotation}; take one of the two lines out, or run it again into a new file"
            )
        options = len(result.option_order)
        scored = options if result.log_probabilities is None else len(result.log_probabilities)
        if sorted(result.option_order) != list(range(options)) or not 0 <= result.gold < options or scored != options:
            raise UserError(
                f"results: question {result.id!r}, rotation {result.rotation}: the order {list(result.option_order)}, "
                f"the answer {result.gold} and {scored} log-probabilities do not go together; run it again"
            )
        seen.add(key)
        questions.setdefault(key[:2], []).append(result)
    return {key: sorted(orders, key=lambda order: order.rotation) for key, orders in questions.items()}


def _group_of(results: Sequence[Result], bad_rows: Sequence[BadRow], groups: Mapping[str, str]) -> dict[str, str]:
    """The group of each set that there is anything of, in the order of `groups`; a set it lacks is its own."""
    found = {row.set: row.set for row in bad_rows} | {result.set: result.group for result in results}
    ordered = [name for name in groups if name in found] + [name for name in found if name not in groups]
    return {name: groups[name] if name in groups else found[name] for name in ordered}


def _table(
    name: str,
    questions: Mapping[tuple[Condition, str], Sequence[Result]],
    bad_rows: Sequence[BadRow],
    ways: Sequence[Way],
) -> _Table:
    marked: dict[Condition, list[Marked]] = {}
    first = []
    for (condition, _), orders in questions.items():
        if orders[0].set == name:
            marked.setdefault(condition, []).append(mark(orders, ways))
            if condition == "audio":
                first.append(orders[0])
    return _Table(marked, first, [row for row in bad_rows if row.set == name])


def _set_score(name: str, group: str, averaged: bool, table: _Table) -> SetScore:
    heard = table.marked.get("audio", [])
    shares = letter_shares([result.option_order.index(result.gold) for result in table.first])
    told = len(heard) / (len(heard) + len(table.bad)) if heard else 0.0  # bad rows have no right letter
    always = {letter: share * told for letter, share in shares.items()}
    tied: list[Way] = [way for each in heard for way in each.ties]
    ties: dict[Way, int] = {way: tied.count(way) for way in WAYS if way in tied}
    silent: list[Condition] = [condition for condition in CONDITIONS[1:] if condition in table.marked]
    return SetScore(
        name=name,
        group=group,
        averaged=averaged,
        n=len(heard) + len(table.bad),
        bad_rows=len(table.bad),
        errors=sum(each.has_error for each in heard),
        replies=sum(each.replies for each in heard),
        unreadable=sum(each.unreadable for each in heard),
        ties=ties,
        questions_cut=sum(each.seconds_dropped > 0 for each in heard),
        seconds_dropped=sum(each.seconds_dropped for each in heard),
        ways=_by_way({name: table}, "audio"),
        published_convention=_published_convention(table.first),
        baselines={condition: _by_way({name: table}, condition) for condition in silent},
        always=always,
        majority=max(always.values(), default=0.0),
    )


def _pooled(name: str, tables: Mapping[str, _Table], sets: Sequence[SetScore]) -> PooledScore:
    of = [each for each in sets if each.name in tables]
    conventions = [each.published_convention.accuracy for each in of if each.published_convention]
    conditions: list[Condition] = [
        condition for condition in CONDITIONS[1:] if any(condition in each.baselines for each in of)
    ]
    return PooledScore(
        name=name,
        sets=tuple(tables),
        n=sum(each.n for each in of),
        average=_by_way(tables, "audio"),
        micro=_by_way(tables, "audio", plain=False),
        published_convention=sum(conventions) / len(conventions) if conventions else None,
        baselines={condition: _by_way(tables, condition) for condition in conditions},
        majority=sum(each.majority for each in of) / len(of) if of else None,
    )


def _by_way(tables: Mapping[str, _Table], condition: Condition, *, plain: bool = True) -> ByWay:
    """The accuracy by each way, as the plain mean over the sets or, not `plain`, over all questions.

    A bad row is a wrong question on a song of its own. Sets without a question under the condition do not count.
    """
    rows: list[tuple[str, str, Mapping[Way, float]]] = []
    for name, table in tables.items():
        rows += [(name, each.song, each.values) for each in table.marked.get(condition, ())]
        if condition == "audio":
            rows += [(name, f"bad row {row.id}", {}) for row in table.bad]
    ways: dict[Way, None] = {way: None for _, _, values in rows for way in values} or {"generated": None}
    found: dict[Way, Accuracy] = {}
    for way in ways:
        values = [earned.get(way, 0.0) for _, _, earned in rows]
        accuracy = accuracy_of(values, [song for _, song, _ in rows], [name for name, _, _ in rows] if plain else None)
        if accuracy is not None:
            found[way] = accuracy
    return found


def _published_convention(first: Sequence[Result]) -> Accuracy | None:
    values = [(published_value(result), result.song) for result in first if result.rotation == 0]
    counted = [(value, song) for value, song in values if value is not None]
    return accuracy_of([value for value, _ in counted], [song for _, song in counted])
