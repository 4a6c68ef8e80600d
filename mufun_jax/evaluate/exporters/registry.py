"""The formats that results can be written in for benchmarks' own scorers."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.benchmark_question import BenchmarkQuestion
from mufun_jax.evaluate.exporters.answered import PREDICTIONS, Answered, Prediction, answered
from mufun_jax.evaluate.exporters.cmi_bench import write_cmi_bench
from mufun_jax.evaluate.exporters.lmms_eval import write_lmms_eval
from mufun_jax.evaluate.exporters.mmar import write_mmar
from mufun_jax.evaluate.exporters.mmau import write_mmau
from mufun_jax.evaluate.exporters.muchomusic import write_muchomusic
from mufun_jax.evaluate.result import Result

EXPORTERS: dict[str, Callable[[Path, Sequence[Answered], str], list[Path]]] = {
    "mmau": write_mmau,
    "mmar": write_mmar,
    "muchomusic": write_muchomusic,
    "cmi_bench": write_cmi_bench,
    "lmms_eval": write_lmms_eval,
}


def export_results(
    format: str,
    folder: Path,
    questions: Iterable[BenchmarkQuestion],
    results: Sequence[Result],
    *,
    model: str,
    prediction: Prediction = "choice",
) -> list[Path]:
    """Writes what was answered with the songs, options in their own order, and returns the files.

    Scorers read the option that our rules read ("choice"), or the raw reply ("reply"). Bad rows are no questions, and
    are in no file.

    Raises UserError for an unknown format or prediction, where a question has no result or another answer than its
    result says, or a name cannot be a file's.
    """
    if format not in EXPORTERS:
        known = list(EXPORTERS)
        raise UserError(f"no exporter {format!r}{nearest(format, known)}; there are: {', '.join(known)}")
    if prediction not in PREDICTIONS:
        raise UserError(f"prediction is {' or '.join(map(repr, PREDICTIONS))}, not {prediction!r}")
    return EXPORTERS[format](folder, answered(questions, results, prediction), model)
