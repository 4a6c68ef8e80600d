"""Scores as a table and as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from mufun_jax.evaluate.run import TaskScore


def score_table(scores: dict[str, TaskScore]) -> Table:
    """One line a task. A task is marked as heard where its interval lies above all three baselines."""
    table = Table(title="Accuracy on held-out pieces")
    table.add_column("task")
    for heading in ("n", "accuracy", "95 % interval", "commonest answer", "no audio", "another song", "heard"):
        table.add_column(heading, justify="right")
    for task, score in scores.items():
        low, high = score.interval
        table.add_row(
            task,
            str(score.n),
            f"{score.accuracy:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{score.majority:.3f}",
            f"{score.no_audio:.3f}",
            f"{score.wrong_audio:.3f}",
            "yes" if is_heard(score) else "no",
        )
    return table


def is_heard(score: TaskScore) -> bool:
    """Whether the lower end of the interval lies above all three baselines."""
    return score.interval[0] > max(score.majority, score.no_audio, score.wrong_audio)


def write_scores(path: Path, scores: dict[str, TaskScore]) -> None:
    """`{"tasks": {"pitch": {"n": …, "accuracy": …, "interval": […, …], "majority": …, …}, …}}`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tasks": {task: asdict(score) for task, score in scores.items()}}, indent=1) + "\n")
