"""The steps of a run, from metrics.jsonl: one array a field, however many steps there are."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mufun_jax.report.json_lines import JsonLines

FIELDS = (
    "seconds",
    "loss",
    "evaluation_loss",
    "token_accuracy",
    "learning_rate",
    "gradient_norm",
    "gradient_norm_encoder",
    "gradient_norm_connector",
    "gradient_norm_decoder",
    "gradient_norm_lora",
    "tokens_per_second",
    "audio_seconds_per_second",
    "mfu",
    "memory_gib",
    "goodput",
    "data_wait_seconds",
    "positions_used",
    "windows_used",
    "target_tokens",
    "examples",
)


@dataclass(frozen=True)
class Steps:
    """All steps that count, by their global step. What a line lacks is NaN; what all lack has no array."""

    global_step: Int64[np.ndarray, " steps"]
    stage: Int64[np.ndarray, " steps"]  # which of `stages`
    stages: tuple[str, ...]  # in the order in which they came
    values: Mapping[str, Float64[np.ndarray, " steps"]]  # by field; those of FIELDS that are there
    loss_of: Mapping[str, Float64[np.ndarray, " steps"]]  # by set of the mixture
    skipped: Mapping[int, str]  # places of the steps that the guard passed over, and why
    taken_back: int  # lines that later ones replaced: a rollback went behind them
    unreadable: int

    def __len__(self) -> int:
        return len(self.global_step)

    def total(self, name: str) -> float:
        """The sum of a field over all steps that have it."""
        return float(np.nansum(self.values[name])) if name in self.values else 0.0


@dataclass
class _Columns:
    """Arrays that grow by a line at a time. A column is filled with NaN up to a line only when a line has it."""

    global_step: array = field(default_factory=lambda: array("q"))
    stage: array = field(default_factory=lambda: array("q"))
    stages: dict[str, int] = field(default_factory=dict)
    values: dict[str, array] = field(default_factory=dict)
    loss_of: dict[str, array] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    taken_back: int = 0

    def add(self, line: dict[str, Any]) -> None:
        """Raises ValueError, before anything is added, for a line that is no step."""
        step, stage = line.get("global_step"), line.get("stage")
        if type(step) is not int or not 0 < step < 2**62 or not isinstance(stage, str):
            raise ValueError("no step")
        values = numbers({name: line[name] for name in FIELDS if name in line})
        loss_of = numbers(line["loss_of"]) if "loss_of" in line else {}
        if self.global_step and step <= self.global_step[-1]:
            self._take_back(bisect_left(self.global_step, step))
        place = len(self.global_step)
        self.global_step.append(step)
        self.stage.append(self.stages.setdefault(stage, len(self.stages)))
        for columns, found in ((self.values, values), (self.loss_of, loss_of)):
            for name, value in found.items():
                column = columns[name] if name in columns else columns.setdefault(name, array("d"))
                if len(column) < place:
                    _fill(column, place)
                column.append(value)
        if line.get("skipped"):
            self.skipped[place] = str(line["skipped"])

    def _take_back(self, place: int) -> None:
        self.taken_back += len(self.global_step) - place
        for column in (self.global_step, self.stage, *self.values.values(), *self.loss_of.values()):
            del column[place:]
        self.skipped = {at: why for at, why in self.skipped.items() if at < place}


def read_steps(path: Path) -> Steps:
    """Reads a metrics file in a stream. Where a line goes back to an earlier step, the lines from there on count."""
    lines, columns, unreadable = JsonLines(path), _Columns(), 0
    for line in lines:
        try:
            columns.add(line)
        except (ValueError, OverflowError):
            unreadable += 1
    return Steps(
        np.array(columns.global_step, np.int64),
        np.array(columns.stage, np.int64),
        tuple(columns.stages),
        _arrays(columns.values, len(columns.global_step)),
        _arrays(columns.loss_of, len(columns.global_step)),
        columns.skipped,
        columns.taken_back,
        unreadable + lines.unreadable,
    )


def numbers(found: Any) -> dict[str, float]:
    """An object of JSON numbers; null is NaN. Raises ValueError or OverflowError."""
    if not isinstance(found, dict):
        raise ValueError(f"{found!r} is no object")
    for name, value in found.items():
        if type(value) is not float:  # nearly all are: this loop is most of the time of reading
            if type(value) is not int and value is not None:
                raise ValueError(f"{name} is no number")
            found[name] = math.nan if value is None else float(value)
    return found


def _fill(column: array, length: int) -> None:
    column.extend([math.nan] * (length - len(column)))


def _arrays(columns: dict[str, array], length: int) -> dict[str, np.ndarray]:
    for column in columns.values():
        _fill(column, length)
    arrays = {name: np.array(column, np.float64) for name, column in columns.items()}
    for values in arrays.values():
        values[~np.isfinite(values)] = np.nan  # infinities: no curve shows them
    return {name: values for name, values in arrays.items() if np.isfinite(values).any()}
