"""What `mufun report` does: reads a run's workdir and writes a page about it."""

import time
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from mufun_jax.commands import show
from mufun_jax.errors import UserError


def report(workdir: Path, out: Path | None) -> None:
    """Writes the page, by default to `workdir`/report.html, and prints where it is.

    Raises UserError where no run is, a file of it is damaged, or a library is missing.
    """
    for library, name in (("plotly", "Plotly"), ("jinja2", "Jinja2")):
        if find_spec(library) is None:
            raise UserError(f"mufun report needs {name}, which is not installed: pip install 'mufun_jax[report]'")
    from mufun_jax.report.history import read_history
    from mufun_jax.report.page import make_page

    page = out if out is not None else workdir / "report.html"
    with Console(stderr=True).status(f"Reading {workdir}"):
        now = time.time()
        text = make_page(read_history(workdir, now), now)
    page.parent.mkdir(parents=True, exist_ok=True)
    aside = page.with_name(page.name + ".partial")
    aside.write_text(text, encoding="utf-8")
    aside.rename(page)
    show([f"The report is in {page}"])
