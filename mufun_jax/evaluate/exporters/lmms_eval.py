"""lmms-eval's files of samples, as it writes them with `--log_samples`: JSON lines for each task.

Source: `save_results_samples` in `lmms_eval/loggers/evaluation_tracker.py` of EvolvingLMMs-Lab/lmms-eval, and what its
`evaluator.py` logs of a sample. `resps` is what the model said and `filtered_resps` what was made of it; the targets
are letters, as shown, and `exact_match` is 1 or 0 by our own reading.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from mufun_jax.evaluate.exporters.answered import (
    Answered,
    by_set,
    file_name,
    shown_letter,
    source_row,
    write_lines,
)


def write_lmms_eval(folder: Path, pairs: Sequence[Answered], model: str) -> list[Path]:
    """`samples_SET.jsonl` for each set. Raises UserError where a set's name cannot be a file's."""
    return [
        write_lines(
            folder / f"samples_{file_name(name, 'the set')}.jsonl",
            (_sample(number, pair) for number, pair in enumerate(of_set)),
        )
        for name, of_set in by_set(pairs).items()
    ]


def _sample(number: int, pair: Answered) -> dict[str, object]:
    result = pair.result
    source = json.dumps(source_row(pair.question), indent=2, ensure_ascii=False)
    return {
        "doc_id": number,
        "target": shown_letter(result, result.gold),
        "resps": [[result.reply or ""]],
        "filtered_resps": [pair.letter()],
        "doc_hash": hashlib.sha256(source.encode()).hexdigest(),
        "exact_match": float(result.letter == result.gold),
        "input": result.prompt,
    }
