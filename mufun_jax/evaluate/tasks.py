"""The questions of an evaluation, by task."""

from dataclasses import dataclass
from pathlib import Path

from data_pipelines.manifest import Example, read_manifest
from mufun_jax.errors import ManifestError, UserError, nearest


@dataclass(frozen=True)
class Item:
    """One question with its answer. Its example holds the audio."""

    task: str
    question: str
    answer: str
    example: Example


def load_items(manifest: Path, tasks: list[str] | None = None) -> dict[str, list[Item]]:
    """The questions of a manifest by task; every entry is one question and names its `task`.

    Raises:
        ManifestError: an entry without a task, or with several questions.
        UserError: a task in `tasks` that the manifest does not hold, with the nearest that it does.
    """
    items: dict[str, list[Item]] = {}
    for example in read_manifest(manifest):
        if example.task is None:
            raise ManifestError(
                f"{manifest}, {example.id}: no field 'task'; an evaluation counts each answer under one"
            )
        if len(example.turns) != 1:
            raise ManifestError(f"{manifest}, {example.id}: {len(example.turns)} questions; an evaluation asks one")
        turn = example.turns[0]
        assert turn.answer is not None
        items.setdefault(example.task, []).append(Item(example.task, turn.question, turn.answer, example))
    for task in tasks or []:
        if task not in items:
            raise UserError(
                f"{manifest}: no task {task!r}{nearest(task, list(items))}; there are {', '.join(sorted(items))}"
            )
    return {task: items[task] for task in (tasks or items)}
