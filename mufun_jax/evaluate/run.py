"""Runs an evaluation: every question with its song, without audio, and with another song."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mufun_jax.errors import UserError
from mufun_jax.evaluate.score import is_correct, majority_accuracy, wilson_interval
from mufun_jax.evaluate.tasks import Item
from mufun_jax.generate.answer import Answer
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.question import Question, Segment
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER

_BATCH = 32
_MAX_NEW_TOKENS = 12
_SHUFFLE_SEED = 0  # of which other song a question gets


@dataclass(frozen=True)
class TaskScore:
    """Accuracies of one task on n questions. `interval` is the Wilson 95 % interval of `accuracy`.

    Baselines: `majority` always gives the commonest answer, `no_audio` is the model asked without the song, and
    `wrong_audio` the model asked with another song.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    majority: float
    no_audio: float
    wrong_audio: float


def evaluate(
    model: MuFun,
    items: dict[str, list[Item]],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, TaskScore]:
    """Scores every task. `progress` gets the number of questions answered and of all."""
    everything = [item for task in items.values() for item in task]
    others = {id(item): other for task in items.values() for item, other in zip(task, other_songs(task), strict=True)}
    conditions = {
        "audio": [with_audio(item, item) for item in everything],
        "no_audio": [without_audio(item) for item in everything],
        "wrong_audio": [with_audio(item, others[id(item)]) for item in everything],
    }
    total, replies = len(conditions) * len(everything), {}
    for condition, questions in conditions.items():
        before = len(replies) * len(everything)
        replies[condition] = answer_all(
            model, questions, lambda answered, before=before: progress(before + answered, total)
        )
    right = {
        condition: {id(item): is_correct(reply, item.answer) for item, reply in zip(everything, texts, strict=True)}
        for condition, texts in replies.items()
    }
    return {task: _score(task_items, right) for task, task_items in items.items()}


def answer_all(model: MuFun, questions: Sequence[Question], progress: Callable[[int], None]) -> list[str]:
    """The texts of `greedy_answers`."""
    return [answer.text for answer in greedy_answers(model, questions, _MAX_NEW_TOKENS, progress)]


def greedy_answers(
    model: MuFun, questions: Sequence[Question], max_new_tokens: int, progress: Callable[[int], None]
) -> list[Answer]:
    """Greedy answers, in the order of the questions. Like lengths are answered together.

    `progress` gets the number of questions answered.
    """
    sizes = [(sum(map(_size, question.audio_files)), len(question.prompt)) for question in questions]
    order = sorted(range(len(questions)), key=lambda i: sizes[i])
    found: dict[int, Answer] = {}
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        answers = model.answer([questions[i] for i in chosen], max_new_tokens=max_new_tokens)
        found |= zip(chosen, answers, strict=True)
        progress(start + len(chosen))
    return [found[i] for i in range(len(questions))]


def _size(audio: Path | bytes) -> int:
    if isinstance(audio, bytes):
        return len(audio)
    return audio.stat().st_size if audio.is_file() else 0


def other_songs(items: list[Item]) -> list[Item]:
    """For each question of a task another one whose audio it gets, never its own song's.

    Raises UserError where the task has questions on one song only.
    """
    shuffled = list(range(len(items)))
    random.Random(_SHUFFLE_SEED).shuffle(shuffled)
    others: list[Item] = [items[0]] * len(items)
    for place, i in enumerate(shuffled):
        candidates = (items[shuffled[(place + step) % len(items)]] for step in range(1, len(items)))
        other = next((c for c in candidates if c.example.audio != items[i].example.audio), None)
        if other is None:
            raise UserError(f"task {items[i].task!r} has questions on one song only: there is no other song's audio")
        others[i] = other
    return others


def with_audio(item: Item, song: Item) -> Question:
    """The item's question about another item's audio (or its own)."""
    segments: tuple[Segment, ...] = song.example.segments
    return Question(item.question, song.example.audio, segments)


def without_audio(item: Item) -> Question:
    """The question alone, the placeholder and its line break taken out."""
    prompt = item.question.replace(f"{AUDIO_PLACEHOLDER}\n", "").replace(AUDIO_PLACEHOLDER, "")
    return Question(prompt)


def _score(items: list[Item], right: dict[str, dict[int, bool]]) -> TaskScore:
    counts = {condition: sum(correct[id(item)] for item in items) for condition, correct in right.items()}
    n = len(items)
    return TaskScore(
        n=n,
        accuracy=counts["audio"] / n,
        interval=wilson_interval(counts["audio"], n),
        majority=majority_accuracy([item.answer for item in items]),
        no_audio=counts["no_audio"] / n,
        wrong_audio=counts["wrong_audio"] / n,
    )
