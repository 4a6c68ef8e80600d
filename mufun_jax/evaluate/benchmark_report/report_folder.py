"""The report's files: `report.json`, `report.md` and `report.html`."""

import json
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_report.markdown import report_markdown
from mufun_jax.evaluate.benchmark_report.report import BenchmarkReport, report_json


def write_report(folder: Path, report: BenchmarkReport, now: float) -> list[Path]:
    """Writes the three files to `folder`, each whole or not at all, and returns them. `now` is in seconds since 1970.

    Raises UserError where what draws the page is not installed, before anything is written.
    """
    for library, name in (("plotly", "Plotly"), ("jinja2", "Jinja2")):
        if find_spec(library) is None:
            raise UserError(f"the report needs {name}, which is not installed: pip install 'mufun_jax[report]'")
    from mufun_jax.evaluate.benchmark_report.page import benchmark_page

    made = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    texts = {
        "report.json": json.dumps(report_json(report, made), indent=1, allow_nan=False) + "\n",
        "report.md": report_markdown(report, made),
        "report.html": benchmark_page(report, made),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        aside = folder / f"{name}.partial"
        aside.write_text(text, encoding="utf-8")
        aside.rename(folder / name)
    return [folder / name for name in texts]
