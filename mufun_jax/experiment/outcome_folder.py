"""The report's files: `report.json` and `report.html`."""

import json
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from mufun_jax.errors import UserError
from mufun_jax.experiment.outcome import Outcome, outcome_json


def check_libraries() -> None:
    """Raises UserError where what draws the page is not installed: before an experiment runs for hours."""
    for library, name in (("plotly", "Plotly"), ("jinja2", "Jinja2")):
        if find_spec(library) is None:
            raise UserError(f"the report needs {name}, which is not installed: pip install 'mufun_jax[report]'")


def write_outcome(folder: Path, outcome: Outcome, now: float) -> list[Path]:
    """Writes the two files to `folder`, each whole or not at all, and returns them. `now`: seconds since 1970."""
    from mufun_jax.experiment.outcome_page import outcome_page

    made = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    texts = {
        "report.json": json.dumps(outcome_json(outcome, made), indent=1, allow_nan=False) + "\n",
        "report.html": outcome_page(outcome, made),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        aside = folder / f"{name}.partial"
        aside.write_text(text, encoding="utf-8")
        aside.rename(folder / name)
    return [folder / name for name in texts]
