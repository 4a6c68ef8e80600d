"""Replies to look at: some that are right, some wrong, some without a readable letter, and errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from mufun_jax.evaluate.benchmark_question import LETTERS
from mufun_jax.evaluate.result import Result

Kind = Literal["right", "wrong", "unreadable", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Example:
    """A reply with its question. `expected` and `read` are letters as shown, `read` None where none was read.

    `reply` is the error's message for a question that ended with one.
    """

    kind: Kind
    id: str
    set: str
    prompt: str
    reply: str
    expected: str
    read: str | None


def examples(results: Sequence[Result], each: int = 4) -> tuple[Example, ...]:
    """At most `each` of every kind, of as many sets as there are, always the same ones of the same results.

    Only questions asked with the song, options in their own order.
    """
    found: dict[Kind, dict[str, list[Result]]] = {kind: {} for kind in KINDS}
    for result in results:
        if result.condition == "audio" and result.rotation == 0:
            found[_kind(result)].setdefault(result.set, []).append(result)
    return tuple(_example(kind, result) for kind in KINDS for result in _spread(list(found[kind].values()), each))


def _spread(of_sets: Sequence[Sequence[Result]], most: int) -> list[Result]:
    """The first of each set, the second of each, and so on."""
    longest = max(map(len, of_sets), default=0)
    return [of_set[rank] for rank in range(min(longest, most)) for of_set in of_sets if rank < len(of_set)][:most]


def _kind(result: Result) -> Kind:
    if result.error is not None or result.reply is None:
        return "error"
    if result.letter is None:
        return "unreadable"
    return "right" if result.letter == result.gold else "wrong"


def _example(kind: Kind, result: Result) -> Example:
    order = result.option_order
    return Example(
        kind=kind,
        id=result.id,
        set=result.set,
        prompt=result.prompt,
        reply=(result.error or "no reply") if kind == "error" else result.reply or "",
        expected=LETTERS[order.index(result.gold)],
        read=None if result.letter is None else LETTERS[order.index(result.letter)],
    )
