"""Results as a run writes them, of models that need no weights: an oracle, one that always says B, a mute one."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from mufun_jax.evaluate.benchmark_question import LETTERS
from mufun_jax.evaluate.result import Condition, OptionLogProbability, Result

Model = Literal["oracle", "always_b", "mute", "guess"]


def results(
    model: Model,
    sets: dict[str, str] | None = None,
    *,
    questions: int = 24,
    songs: int = 6,
    rotations: int = 1,
    conditions: Sequence[Condition] = ("audio",),
    options: int = 4,
    skill: float = 0.5,
    seed: int = 0,
) -> list[Result]:
    """So many questions a set, `sets` being the group of each, on so many songs. `guess` knows `skill` of all
    with the song and nothing otherwise, and takes any option where it does not know."""
    return [
        result_of(
            model,
            name,
            group,
            number,
            song=f"{name}/{number % songs}.wav",
            rotation=rotation,
            condition=condition,
            options=options,
            skill=skill,
            seed=seed,
        )
        for name, group in (sets or {"disco": "genre"}).items()
        for number in range(questions)
        for condition in conditions
        for rotation in range(rotations)
    ]


def result_of(
    model: Model,
    name: str = "disco",
    group: str = "genre",
    number: int = 0,
    *,
    song: str = "one.wav",
    rotation: int = 0,
    condition: Condition = "audio",
    options: int = 4,
    skill: float = 0.5,
    seed: int = 0,
    gold: int | None = None,
) -> Result:
    question = random.Random(f"{name} {number}")
    right = question.randrange(options) if gold is None else gold
    order = tuple((place + rotation) % options for place in range(options))
    chance = random.Random(f"{seed} {name} {number} {rotation} {condition}")
    if condition != "audio" and model == "guess":
        skill = 0.0
    chosen = {
        "oracle": right,
        "always_b": order[1],
        "mute": None,
        "guess": right if chance.random() < skill else order[chance.randrange(options)],
    }[model]
    reply = "" if chosen is None else f"{LETTERS[order.index(chosen)]}. option {chosen}"
    scores = [0.0 if place == chosen else -4.0 for place in order]
    prompt = f"Choose the correct option. Which of them is song {number}? " + " ".join(
        f"{LETTERS[i]}. option {place}" for i, place in enumerate(order)
    )
    return Result(
        id=f"{name}-{number}",
        set=name,
        group=group,
        song=song,
        condition=condition,
        rotation=rotation,
        option_order=order,
        gold=right,
        seed=seed,
        prompt=prompt,
        reply=reply,
        letter=chosen,
        judged=None,
        log_probabilities=tuple(OptionLogProbability(score - 0.1, 2 * score - 1, 2) for score in scores),
        constrained=chosen,
        error=None,
        seconds_used=30.0,
        seconds_dropped=0.0,
        audio_digest=hashlib.sha256(song.encode()).hexdigest(),
        prompt_digest=hashlib.sha256(prompt.encode()).hexdigest(),
        model_digest="m" * 64,
        code_digest="c" * 64,
    )


def failed(result: Result, error: str = "damaged.wav: cannot be decoded") -> Result:
    """The same question, ended with an error."""
    return replace(result, reply=None, letter=None, log_probabilities=None, constrained=None, error=error)
