"""Packing: several examples in one row, under three budgets (positions, windows, targets)."""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from data_pipelines.encode import Budget, EncodedExample
from mufun_jax.batch import Batch

_BLOCK_ROWS = 8  # rows' worth of examples looked at together; more packs tighter and remembers more


def pack_block(examples: Sequence[EncodedExample], budget: Budget) -> list[list[EncodedExample]]:
    """First fit decreasing: the longest examples open rows, shorter ones fill them. Every example is in one row.

    Rows come in the order in which their first example came in, so a shuffle stays a shuffle.
    """
    rows: list[list[int]] = []
    free: list[np.ndarray] = []
    limits = np.array([budget.positions, budget.windows, budget.targets])
    sizes = [np.array([len(e.tokens), len(e.samples), len(e.targets)]) for e in examples]
    for i in sorted(range(len(examples)), key=lambda i: -max(sizes[i] / limits)):
        row = next((row for row in range(len(rows)) if (sizes[i] <= free[row]).all()), None)
        if row is None:
            rows.append([])
            free.append(limits.copy())
            row = len(rows) - 1
        rows[row].append(i)
        free[row] -= sizes[i]
    return [[examples[i] for i in sorted(row)] for row in sorted(rows, key=min)]


def build_row(examples: Sequence[EncodedExample], budget: Budget, window_samples: int, tokens_per_window: int) -> Batch:
    """One row of a Batch (fields without their leading R)."""
    L, W, T = budget.positions, budget.windows, budget.targets
    row = Batch(
        tokens=np.zeros(L, np.int32),
        audio_slot=np.full(L, -1, np.int32),
        positions=np.zeros(L, np.int32),
        segment_ids=np.zeros(L, np.int32),
        samples=np.zeros((W, window_samples), np.int16),
        window_mask=np.zeros(W, bool),
        target_index=np.full(T, -1, np.int32),
        targets=np.zeros(T, np.int32),
        target_weights=np.zeros(T, np.float32),
    )
    position = window = target = 0
    for segment, example in enumerate(examples, 1):
        at = slice(position, position + len(example.tokens))
        row.tokens[at] = example.tokens
        slots = example.audio_slot
        row.audio_slot[at] = np.where(slots >= 0, slots + window * tokens_per_window, -1)
        row.positions[at] = np.arange(len(example.tokens))
        row.segment_ids[at] = segment
        row.samples[window : window + len(example.samples)] = example.samples
        row.window_mask[window : window + len(example.samples)] = True
        targets_at = slice(target, target + len(example.targets))
        row.target_index[targets_at] = example.target_index + position
        row.targets[targets_at] = example.targets
        row.target_weights[targets_at] = 1.0
        position, window, target = at.stop, window + len(example.samples), targets_at.stop
    return row


class PackRows(grain.IterDataset):
    """Packs a stream of encoded examples into rows, a block of examples at a time.

    Its state is where the block began and how many of its rows are out: small, and exact to resume from.
    """

    def __init__(self, parent: grain.IterDataset, budget: Budget, window_samples: int, tokens_per_window: int):
        super().__init__(parent)
        self.budget = budget
        self.window_samples = window_samples
        self.tokens_per_window = tokens_per_window

    def __iter__(self) -> grain.DatasetIterator:
        return _PackIterator(iter(self.parents[0]), self)


class _PackIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, rows: PackRows):
        super().__init__(parent)
        self._source = parent
        self._settings = rows
        self._block_start = parent.get_state()
        self._rows: list[list[EncodedExample]] = []
        self._rows_out = 0

    def __next__(self) -> dict[str, Any]:
        while self._rows_out == len(self._rows):
            self._block_start = self._source.get_state()
            self._rows, self._rows_out = self._read_block(), 0
        examples = self._rows[self._rows_out]
        self._rows_out += 1
        settings = self._settings
        return {
            "batch": build_row(examples, settings.budget, settings.window_samples, settings.tokens_per_window),
            "examples": np.int32(len(examples)),
            "dropped_windows": np.int32(sum(example.dropped_windows for example in examples)),
        }

    def _read_block(self) -> list[list[EncodedExample]]:
        """Examples until they would fill the block's rows by the budget they need most of."""
        budget = self._settings.budget
        limits = _BLOCK_ROWS * np.array([budget.positions, budget.windows, budget.targets])
        block: list[EncodedExample] = []
        filled = np.zeros(3, int)
        while (filled < limits).all():
            example = next(self._source, None)
            if example is None:
                break
            block.append(example)
            filled += [len(example.tokens), len(example.samples), len(example.targets)]
        if not block:
            raise StopIteration
        return pack_block(block, budget)

    def get_state(self) -> dict[str, Any]:
        return {"block_start": self._block_start, "rows_out": self._rows_out}

    def set_state(self, state: dict[str, Any]) -> None:
        self._source.set_state(state["block_start"])
        self._block_start = state["block_start"]
        self._rows, self._rows_out = [], 0
        if state["rows_out"]:
            self._rows, self._rows_out = self._read_block(), state["rows_out"]
