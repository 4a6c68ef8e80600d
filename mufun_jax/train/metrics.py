"""Metrics as JSON lines: one line a step, in the order of the curriculum."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from mufun_jax.errors import UserError
from mufun_jax.sharding.processes import is_first


class MetricsLog:
    """Appends to `metrics.jsonl`, on process 0. On resuming, lines after the checkpoint are taken back first."""

    def __init__(self, path: Path, resume_after: int):
        """`resume_after`: the last global step that the checkpoint holds; 0 for a fresh start."""
        self.path = path
        self.seconds = 0.0  # of all steps whose lines are there
        self.evaluation_losses: dict[int, float] = {}  # by global step
        self._file: BinaryIO | None = None
        kept = 0
        for line, end in lines_and_ends(path):
            if line["global_step"] > resume_after:
                break
            kept = end
            self._count(line)
        if is_first():
            self._file = path.open("ab")
            self._file.truncate(kept)

    def write(self, line: dict[str, Any]) -> None:
        self._count(line)
        if self._file is not None:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()

    def sync(self) -> None:
        """What was written is on the disk when this returns: before a checkpoint that counts on it."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _count(self, line: dict[str, Any]) -> None:
        self.seconds += line.get("seconds", 0.0)
        if "evaluation_loss" in line:
            self.evaluation_losses[line["global_step"]] = line["evaluation_loss"]


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file of JSON lines; a last line that a kill cut short is left out.

    Raises UserError, with the line's number, where another one is no JSON object.
    """
    return (line for line, _ in lines_and_ends(path))


def lines_and_ends(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Each line, and the byte where it ends. Raises UserError as `read_metrics` does."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        end = 0
        for number, text in enumerate(file, 1):
            end += len(text)
            if not text.endswith(b"}\n"):
                if text.endswith(b"\n") and text.strip():
                    raise UserError(f"{path}, line {number}: is damaged; take the line out")
                continue
            try:
                line = json.loads(text)
            except ValueError:
                raise UserError(f"{path}, line {number}: is damaged; take the line out") from None
            yield line, end
