"""Who asks what, beside what: the rows of a run in batches, shared out to hosts.

A row's numbers may depend, in their last bits, on the rows that are computed beside it. So batches are planned over
all of a run, from names alone, and a batch is always asked whole: on any number of hosts, in any order of the
questions, and after a kill.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mufun_jax.evaluate.asking.choices import prompt_of
from mufun_jax.evaluate.asking.sound import Sound, sounds
from mufun_jax.evaluate.benchmark_question import Benchmark, BenchmarkQuestion
from mufun_jax.evaluate.result import CONDITIONS, Condition
from mufun_jax.evaluate.results_file import Key
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER

ROWS = 32  # of a batch


@dataclass(frozen=True)
class Asking:
    """A question under a condition, its options rotated by so many places, with what is heard."""

    question: BenchmarkQuestion
    condition: Condition
    rotation: int
    sound: Sound | None

    @property
    def key(self) -> Key:
        return self.question.id, self.condition, self.rotation

    @property
    def option_order(self) -> tuple[int, ...]:
        """The place of the option shown under each letter."""
        count = len(self.question.options)
        return tuple((place + self.rotation) % count for place in range(count))

    @property
    def shown_options(self) -> tuple[str, ...]:
        return tuple(self.question.options[place] for place in self.option_order)

    @property
    def prompt(self) -> str:
        """The user's turn: the benchmark's own prompt after `<audio>` and a new line for each song."""
        songs = len(self.sound.songs) if self.sound else 0
        return f"{AUDIO_PLACEHOLDER}\n" * songs + prompt_of(self.question, self.option_order)


Batch = Sequence[Asking]


def limited(benchmark: Benchmark, limit: int | None) -> Benchmark:
    """At most so many rows of each set, bad ones among them, drawn by their ids: the same in any order."""
    if limit is None:
        return benchmark
    ids: dict[str, list[str]] = {}
    for row in (*benchmark.questions, *benchmark.bad_rows):
        ids.setdefault(row.set, []).append(row.id)
    kept = {name: set(sorted(there, key=_drawn)[:limit]) for name, there in ids.items()}
    return replace(
        benchmark,
        questions=tuple(question for question in benchmark.questions if question.id in kept[question.set]),
        bad_rows=tuple(row for row in benchmark.bad_rows if row.id in kept[row.set]),
    )


def askings(benchmark: Benchmark, whole: Benchmark, conditions: Sequence[Condition], rotations: int) -> list[Asking]:
    """All rows of a run. Other songs are those of `whole`. A question has at most as many rotations as options.

    Raises UserError where a question is to get another song and there is none.
    """
    heard: Mapping[Condition, Mapping[str, Sound | None]] = {
        condition: sounds(benchmark.questions, whole.questions, condition) for condition in conditions
    }
    return [
        Asking(question, condition, rotation, heard[condition][question.id])
        for condition in conditions
        for question in benchmark.questions
        for rotation in range(min(rotations, len(question.options)))
    ]


def plan(rows: Sequence[Asking], size: int = ROWS) -> list[list[Batch]]:
    """Batches of about `size` rows, in bundles that one host asks: rows on one sound stay together.

    Sounds of a set follow each other, for their songs are about as long; within it their digests order them.
    """
    of_sound: dict[str, list[Asking]] = {}
    for row in rows:
        of_sound.setdefault(row.sound.key if row.sound else "", []).append(row)
    groups = [sorted(group, key=_place) for group in of_sound.values()]
    groups.sort(
        key=lambda group: (min(row.question.set for row in group), group[0].sound.key if group[0].sound else "")
    )
    bundles: list[list[Batch]] = []
    open_batch: list[Asking] = []
    for group in groups:
        if len(group) >= size:
            pieces: list[Batch] = [group[start : start + size] for start in range(0, len(group), size)]
            alone = group[0].sound is None  # then nothing is shared, and each piece may go anywhere
            bundles += [[piece] for piece in pieces] if alone else [pieces]
            continue
        if open_batch and len(open_batch) + len(group) > size:
            bundles.append([open_batch])
            open_batch = []
        open_batch = [*open_batch, *group]
    return [*bundles, [open_batch]] if open_batch else bundles


def batches_of(bundles: Sequence[Sequence[Batch]], host: int, hosts: int) -> list[Batch]:
    """What one of several hosts asks."""
    return [batch for bundle in bundles[host::hosts] for batch in bundle]


def _place(row: Asking) -> tuple[str, int, int]:
    return row.question.id, CONDITIONS.index(row.condition), row.rotation


def _drawn(id_: str) -> str:
    return hashlib.sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()
