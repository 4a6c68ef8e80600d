"""The report's files: `report.json` and `report.html`."""

import json
from pathlib import Path

from mufun_jax.experiment.outcome import Outcome, outcome_json
from mufun_jax.report.written import made_at, write_texts


def write_outcome(folder: Path, outcome: Outcome, now: float) -> list[Path]:
    """Writes the two files to `folder`, each whole or not at all, and returns them. `now`: seconds since 1970."""
    from mufun_jax.experiment.outcome_page import outcome_page

    made = made_at(now)
    texts = {
        "report.json": json.dumps(outcome_json(outcome, made), indent=1, allow_nan=False) + "\n",
        "report.html": outcome_page(outcome, made),
    }
    return write_texts(folder, texts)
