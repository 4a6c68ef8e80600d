"""What `mufun report` does: reads a run's workdir and writes a page about it."""

import time
from pathlib import Path

from rich.console import Console

from mufun_jax.commands import show
from mufun_jax.report.written import check_libraries, write_texts


def report(workdir: Path, out: Path | None) -> None:
    """Writes the page, by default to `workdir`/report.html, and prints where it is.

    Raises UserError where no run is, a file of it is damaged, or a library is missing.
    """
    check_libraries("mufun report")
    from mufun_jax.report.history import read_history
    from mufun_jax.report.page import make_page

    page = out if out is not None else workdir / "report.html"
    with Console(stderr=True).status(f"Reading {workdir}"):
        now = time.time()
        text = make_page(read_history(workdir, now), now)
    write_texts(page.parent, {page.name: text})
    show([f"The report is in {page}"])
