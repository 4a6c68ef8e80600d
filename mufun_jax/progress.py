"""Progress bars with the time left, on standard error, so that standard output holds results only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[..., None]


@contextmanager
def progress_bar(description: str, unit: Literal["", "bytes"] = "") -> Iterator[Advance]:
    """Yields `advance(done, total, note="")`; what is left is estimated from what was done.

    The bar appears with the first call: what fails before has no bar above its error.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn() if unit == "bytes" else MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    progress = Progress(*columns, console=Console(stderr=True), speed_estimate_period=60)
    task = progress.add_task(description, total=None, note="")

    def advance(done: int, total: int, note: str = "") -> None:
        progress.start()
        progress.update(task, completed=done, total=total, note=note)

    try:
        yield advance
    finally:
        progress.stop()
