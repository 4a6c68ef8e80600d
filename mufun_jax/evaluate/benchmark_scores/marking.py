"""What one question earns, by every way to an answer: between 0 and 1, over all orders of its options."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mufun_jax.evaluate.result import OptionLogProbability, Result

Way = Literal[
    "generated",  # the letter that the rules read in the reply
    "letter_log_probability",  # the likeliest letter
    "text_log_probability",  # the likeliest option text
    "text_log_probability_per_token",  # the same, each divided by its number of tokens
    "constrained",  # the letter chosen where nothing but a letter could be said
]
WAYS: tuple[Way, ...] = get_args(Way)

_LOG_PROBABILITIES: dict[Way, Callable[[OptionLogProbability], float]] = {
    "letter_log_probability": lambda option: option.letter,
    "text_log_probability": lambda option: option.text,
    "text_log_probability_per_token": lambda option: (
        option.text / option.text_tokens if option.text_tokens > 0 else math.nan
    ),
}


@dataclass(frozen=True)
class Marked:
    """One question under one condition. `values` has the ways that were asked for.

    `has_error` where an order ended with an error, or gave a log-probability that is no number. `ties` are the ways by
    which several options were the likeliest. `seconds_dropped` is of the order that lost most.
    """

    id: str
    song: str
    values: dict[Way, float]
    replies: int
    unreadable: int
    has_error: bool
    ties: tuple[Way, ...]
    seconds_dropped: float


def mark(orders: Sequence[Result], ways: Sequence[Way]) -> Marked:
    """Marks the results of one question, one for each order of its options.

    `generated` and `constrained` earn the share of orders that were answered rightly; an order without an answer is
    wrong. Log-probabilities are averaged over the orders, option by option, and then one option is the likeliest. Where
    two are, to the last bit, none was chosen and the question is wrong: to take the first would favour whatever letter
    the benchmark puts the right answer under. It is wrong too where an order has none, or one that is no number.
    """
    first = orders[0]
    values: dict[Way, float] = {}
    ties: list[Way] = []
    for way in ways:
        if way in _LOG_PROBABILITIES:
            means = _mean_log_probabilities(orders, _LOG_PROBABILITIES[way])
            likeliest = _likeliest(means)
            if len(likeliest) > 1:
                ties.append(way)
            values[way] = float(likeliest == [first.gold])
        else:
            chosen = [order.letter if way == "generated" else order.constrained for order in orders]
            values[way] = sum(place == first.gold for place in chosen) / len(orders)
    replies = [order for order in orders if order.reply is not None]
    return Marked(
        id=first.id,
        song=first.song,
        values=values,
        replies=len(replies),
        unreadable=sum(order.letter is None for order in replies),
        has_error=any(order.error is not None or _is_no_number(order) for order in orders),
        ties=tuple(ties),
        seconds_dropped=max(order.seconds_dropped for order in orders),
    )


def ways_of(results: Sequence[Result]) -> tuple[Way, ...]:
    """The ways that a run was asked for: that of the reply always, the others where any result has them."""
    scored = any(result.log_probabilities is not None for result in results)
    constrained = any(result.constrained is not None for result in results)
    asked: dict[Way, bool] = {"generated": True, "constrained": constrained}
    return tuple(way for way in WAYS if asked.get(way, scored))


def published_value(result: Result) -> float | None:
    """What a question earns by the published convention, None where it is left out of the denominator.

    The convention: a judge model takes the letter out of the reply, "None" is wrong, and rows without a reply are left
    out. The judge's letter counts where a judge read one, and else that of the rules.
    """
    if result.reply is None or not result.reply.strip():
        return None
    letter = result.judged if result.judged is not None else result.letter
    return float(letter == result.gold)


def _mean_log_probabilities(
    orders: Sequence[Result], read: Callable[[OptionLogProbability], float]
) -> list[float] | None:
    """By place in the benchmark's order; None where an order has none, or one that is no number."""
    sums = [0.0] * len(orders[0].option_order)
    for order in orders:
        if order.log_probabilities is None:
            return None
        for place, option in zip(order.option_order, order.log_probabilities, strict=True):
            sums[place] += read(option)
    means = [total / len(orders) for total in sums]
    return None if any(math.isnan(mean) or mean == math.inf for mean in means) else means


def _likeliest(means: list[float] | None) -> list[int]:
    return [] if means is None else [place for place, mean in enumerate(means) if mean == max(means)]


def _is_no_number(order: Result) -> bool:
    read = _LOG_PROBABILITIES.values()
    numbers = [value(option) for option in order.log_probabilities or () for value in read]
    return any(math.isnan(number) or number == math.inf for number in numbers)
