"""Scores as a table and as JSON."""

import json
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.table import Table

from mufun_jax.evaluate.run import TaskScore


def score_table(scores: dict[str, TaskScore]) -> Table:
    """One line a task. A task is heard where its whole interval lies above all three baselines."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("task", no_wrap=True)
    for heading in ("n", "accuracy", "95 %", "commonest\nanswer", "no\naudio", "another\nsong", "heard"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task, score in scores.items():
        low, high = score.interval
        table.add_row(
            task,
            str(score.n),
            f"{score.accuracy:.2f}",
            f"{low:.2f}–{high:.2f}",
            f"{score.majority:.2f}",
            f"{score.no_audio:.2f}",
            f"{score.wrong_audio:.2f}",
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
