"""What comes back: an answer, and how likely others would have been."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mufun_jax.errors import UserError
from mufun_jax.generate.constraint import Constraint
from mufun_jax.generate.prompt import Heard

Finish = Literal["stop", "length", "repetition"]


@dataclass(frozen=True)
class Answer:
    """Text, why it ended, and what was heard.

    `finish`: "stop" where the model ended it or a stop string came, "length" at the token limit, "repetition" where it
    went round in circles. `log_probabilities` are those of its `tokens`, in nats.
    """

    text: str
    finish: Finish
    heard: tuple[Heard, ...]
    tokens: tuple[int, ...] = ()
    log_probabilities: tuple[float, ...] = ()

    @property
    def finished(self) -> bool:
        """Whether the model came to an end by itself."""
        return self.finish == "stop"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "finished": self.finished}


@dataclass(frozen=True)
class OptionScore:
    """An answer's summed log-probability in nats, `<|im_end|>` included, and the number of tokens that it sums."""

    option: str
    log_probability: float
    tokens: int


def complete(answer: Answer, constraint: Constraint | None) -> Answer:
    """The answer. Raises UserError where the token limit came before the end of the form that it must have."""
    if constraint is not None and not answer.finished:
        raise UserError(
            f"the answer was not complete after {len(answer.tokens)} tokens: {answer.text[:80]!r}; allow more "
            f"(max_new_tokens), or ask for less"
        )
    return answer


def labelled(start: int | float, end: int | float, pieces: Iterator["str | Answer"]) -> Iterator["str | Answer"]:
    """The pieces of an answer about a part of a song, with the part in front: `[6:30-13:00] `."""
    yield f"[{_clock(start)}-{_clock(end)}] "
    yield from pieces


def joined(parts: Sequence[tuple[int | float, int | float, Answer]]) -> Answer:
    """The answers about the parts of a song, from second to second, as one: a line each."""
    answers = [answer for _, _, answer in parts]
    lines = ["".join(map(str, labelled(start, end, iter([answer.text])))) for start, end, answer in parts]
    unfinished = [answer for answer in answers if not answer.finished]
    return Answer(
        text="\n".join(lines),
        finish=(unfinished or answers)[0].finish,
        heard=tuple(heard for answer in answers for heard in answer.heard),
        tokens=tuple(token for answer in answers for token in answer.tokens),
        log_probabilities=tuple(value for answer in answers for value in answer.log_probabilities),
    )


def _clock(seconds: int | float) -> str:
    """Minutes and seconds; tenths only where there are some."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}".removesuffix(".0")
