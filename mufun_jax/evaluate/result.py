"""One answer to one question of a benchmark: a line of `results.jsonl`."""

from dataclasses import dataclass
from typing import Literal, get_args

Condition = Literal["audio", "text_only", "other_song", "silence"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)


@dataclass(frozen=True)
class OptionLogProbability:
    """Natural logarithms, the end of the turn included, in the order in which the options were shown.

    `letter` is that of the letter alone ("B"), `text` that of the option's text alone, `text_tokens` the number of
    tokens of the latter, by which it is divided for length normalisation.
    """

    letter: float
    text: float
    text_tokens: int


@dataclass(frozen=True)
class Result:
    """What became of one question under one condition in one order of its options.

    `option_order[i]` is the place, in the benchmark, of the option shown under letter i. `gold`, `letter`, and
    `constrained` are places in the benchmark's order too. `letter` is what the rules read from `reply`, None where they
    read none; `judged` is what a judge model read, if one was asked; `constrained` is the letter chosen under a
    constraint. A result with an `error` has no reply and counts as wrong. `seconds_dropped` is what of the song was too
    long for the model. The digests are SHA-256; `code_digest` is that of this package's source.
    """

    id: str
    set: str
    group: str
    song: str
    condition: Condition
    rotation: int
    option_order: tuple[int, ...]
    gold: int
    seed: int
    prompt: str
    reply: str | None
    letter: int | None
    judged: int | None
    log_probabilities: tuple[OptionLogProbability, ...] | None
    constrained: int | None
    error: str | None
    seconds_used: float
    seconds_dropped: float
    audio_digest: str | None
    prompt_digest: str
    model_digest: str
    code_digest: str
