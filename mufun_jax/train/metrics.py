"""Metrics as JSON lines: one line a step, in the order of the curriculum."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mufun_jax.sharding.processes import is_first


class MetricsLog:
    """Appends to `metrics.jsonl`, on process 0. On resuming, lines after the checkpoint are taken back first."""

    def __init__(self, path: Path, resume_after: int):
        """`resume_after`: the last global step that the checkpoint holds; 0 for a fresh start."""
        self._file = None
        if not is_first():
            return
        kept = [line for line in read_metrics(path) if line["global_step"] <= resume_after]
        aside = path.with_name(path.name + ".partial")
        aside.write_text("".join(json.dumps(line) + "\n" for line in kept))
        aside.rename(path)
        self._file = path.open("a")

    def write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics file; a last line that a kill cut short is left out."""
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        if line.endswith("}"):
            yield json.loads(line)
