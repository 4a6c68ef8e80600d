"""Progress bars with the time left, on standard error, so that standard output holds results only."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
def progress_bar(
    description: str, unit: Literal["", "bytes"] = "", *, stays: bool = True, hidden: bool = False
) -> Iterator[Advance]:
    """Yields `advance(done, total, note="")`; what is left is estimated from what was done.

    The bar appears with the first call: what fails before has no bar above its error. One that does not stay goes
    when it is done, and is not shown at all where standard error is no terminal.
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
    console = Console(stderr=True)
    hidden = hidden or (not stays and not console.is_terminal)
    progress = Progress(*columns, console=console, speed_estimate_period=60, transient=not stays, disable=hidden)
    task = progress.add_task(description, total=None, note="")

    with ExitStack() as shown:

        def advance(done: int, total: int | None, note: str = "") -> None:
            if not progress.live.is_started:
                shown.enter_context(progress)
            progress.update(task, completed=done, total=total, note=note)

        yield advance
