"""Scores as a table and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

from rich import box
from rich.table import Table

from mufun_jax.evaluate.free_answers import MetricScore
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


def metric_table(scores: Mapping[str, MetricScore]) -> Table:
    """One line a task that has a metric, with how many answers could not be read or were cut short by the limit.

    Fits 80 columns: long names are folded, numbers never.
    """
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), collapse_padding=True)
    table.add_column("task", overflow="fold")
    table.add_column("metric", overflow="fold")
    for heading in ("n", "score", "95 %", "always\nsame", "no\naudio", "other\nsong", "unread,\ncut", "heard"):
        table.add_column(heading, justify="right", no_wrap=True)
    for task, score in scores.items():
        low, high = map(_short, score.interval)
        counts = score.figures["audio"]
        table.add_row(
            task,
            f"{score.headline}{'↓' if score.lower_is_better else '↑'}",
            str(score.n),
            _short(score.score),
            f"{low}–{high}",
            *map(_short, (score.constant, score.no_audio, score.wrong_audio)),
            f"{counts['unreadable']:.0f}, {counts['cut_short']:.0f}",
            "yes" if score.is_heard else "no",
        )
    return table


def _short(value: float) -> str:
    """Two decimals of a share, one of a score out of 100."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def write_scores(
    path: Path, scores: Mapping[str, TaskScore], measured: Mapping[str, MetricScore] = MappingProxyType({})
) -> None:
    """`{"tasks": {"pitch": {"n": …, "accuracy": …, "interval": […, …], "majority": …, …}, …}}`, and where tasks have a
    metric `"metrics": {"tempo": {"metric": "tempo", "headline": "accuracy_1", "score": …, "figures": …, …}, …}`.
    """
    written = {"tasks": {task: asdict(score) for task, score in scores.items()}}
    if measured:
        written["metrics"] = {task: asdict(score) for task, score in measured.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=1, allow_nan=False) + "\n")
