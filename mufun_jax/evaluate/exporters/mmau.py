"""MMAU's file: its own list of questions, each with the prediction.

Its README asks for `model_prediction`, its `evaluation.py` reads `model_output` (github.com/Sakshi113/MMAU, read in
version v05.15.25): both are written. The scorer looks for the words of an option in the prediction, not for a letter.
"""

from collections.abc import Sequence
from pathlib import Path

from mufun_jax.evaluate.exporters.answered import Answered, own_options, source_row, write_list


def write_mmau(folder: Path, pairs: Sequence[Answered], model: str) -> list[Path]:
    """`mmau.json`."""
    rows = []
    for pair in pairs:
        text = pair.text(own_options(pair, "choices"))
        rows.append(source_row(pair.question) | {"model_output": text, "model_prediction": text})
    return [write_list(folder / "mmau.json", rows)]
