"""The report's files: `report.json`, `report.md` and `report.html`."""

import json
from pathlib import Path

from mufun_jax.evaluate.benchmark_report.markdown import report_markdown
from mufun_jax.evaluate.benchmark_report.report import BenchmarkReport, report_json
from mufun_jax.report.written import check_libraries, made_at, write_texts


def write_report(folder: Path, report: BenchmarkReport, now: float) -> list[Path]:
    """Writes the three files to `folder`, each whole or not at all, and returns them. `now` is in seconds since 1970.

    Raises UserError where what draws the page is not installed, before anything is written.
    """
    check_libraries("the report")
    from mufun_jax.evaluate.benchmark_report.page import benchmark_page

    made = made_at(now)
    texts = {
        "report.json": json.dumps(report_json(report, made), indent=1, allow_nan=False) + "\n",
        "report.md": report_markdown(report, made),
        "report.html": benchmark_page(report, made),
    }
    return write_texts(folder, texts)
