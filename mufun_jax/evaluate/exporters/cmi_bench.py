"""CMI-Bench's files: a list of rows with `response` and `correct_answer` for each task.

Source: `evaluate.py` of github.com/nicolaus625/CMI-bench, which reads `model/results/MODEL/MODEL_TASK.jsonl`: one JSON
list, whatever the name says. Its classification looks for the right class in the response, and for no other class.
"""

from collections.abc import Sequence
from pathlib import Path

from mufun_jax.evaluate.exporters.answered import Answered, by_set, file_name, source_row, write_list


def write_cmi_bench(folder: Path, pairs: Sequence[Answered], model: str) -> list[Path]:
    """`MODEL/MODEL_SET.jsonl` for each set. Raises UserError where a name cannot be a file's."""
    prefix = file_name(model, "the model's name")
    return [
        write_list(folder / prefix / f"{prefix}_{file_name(name, 'the set')}.jsonl", map(_row, of_set))
        for name, of_set in by_set(pairs).items()
    ]


def _row(pair: Answered) -> dict[str, object]:
    source, question = source_row(pair.question), pair.question
    right = source["correct_answer"] if "correct_answer" in source else question.options[question.answer]
    return source | {"response": pair.text(), "correct_answer": right}
