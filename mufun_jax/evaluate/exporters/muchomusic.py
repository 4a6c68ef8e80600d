"""MuChoMusic's file, as its `prepare_prompts.py` lays it out and its `evaluate.py` reads it.

Source: github.com/mulab-mir/muchomusic. A row has `prompt`, `answers` in the order shown, `answer_orders`, in which the
right one is 0, `genre`, `reasoning`, `knowledge`, and `model_output`. The scorer takes any capital A to D in the output
for a letter, the C of "Classical" too, and so a choice is given as its letter.

The benchmark's table has the columns of reasoning and knowledge swapped. The scorer knows nothing of it: what it calls
reasoning here is what the table calls so.
"""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.evaluate.exporters.answered import Answered, source_row, write_list

_LONGEST_LIST = 10_000  # characters


def write_muchomusic(folder: Path, pairs: Sequence[Answered], model: str) -> list[Path]:
    """`muchomusic.json`. Raises UserError where a row's categories are no list."""
    return [write_list(folder / "muchomusic.json", map(_row, pairs))]


def _row(pair: Answered) -> dict[str, Any]:
    question, order = pair.question, pair.result.option_order
    right_first = [question.answer, *(place for place in range(len(order)) if place != question.answer)]
    source = source_row(question)
    return source | {
        "id": source.get("id", question.id),
        "prompt": pair.result.prompt,
        "answers": [question.options[place] for place in order],
        "answer_orders": [right_first.index(place) for place in order],
        "genre": source.get("genre", ""),
        "reasoning": _categories(source, question.id, "reasoning"),
        "knowledge": _categories(source, question.id, "knowledge"),
        "model_output": pair.letter(),
    }


def _categories(source: Mapping[str, Any], id: str, name: str) -> list[str]:
    """A list, or the text of one, as the table has them."""
    value = next((source[field] for field in (name, f"music_{name}") if field in source), None)
    if isinstance(value, str) and value.strip():
        if len(value) > _LONGEST_LIST:
            raise UserError(f"question {id!r}: {name} is {len(value)} characters long, more than {_LONGEST_LIST}")
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise UserError(f"question {id!r}: {name} is no list of names: {value[:80]!r}") from None
    if value in (None, ""):
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UserError(f"question {id!r}: {name} is no list of names: {str(value)[:80]!r}")
    return value
