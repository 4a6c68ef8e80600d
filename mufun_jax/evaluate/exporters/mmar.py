"""MMAR's file: its own list of questions, each with the prediction.

Its scorer is MMAU's, changed (github.com/ddlBoJack/MMAR): the README asks for `model_prediction`, `code/evaluation.py`
reads `answer_prediction`. Both are written. It too looks for the words of an option.
"""

from collections.abc import Sequence
from pathlib import Path

from mufun_jax.evaluate.exporters.answered import Answered, own_options, source_row, write_list


def write_mmar(folder: Path, pairs: Sequence[Answered], model: str) -> list[Path]:
    """`mmar.json`."""
    rows = []
    for pair in pairs:
        text = pair.text(own_options(pair, "choices"))
        rows.append(source_row(pair.question) | {"answer_prediction": text, "model_prediction": text})
    return [write_list(folder / "mmar.json", rows)]
