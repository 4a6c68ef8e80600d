"""Packing: several examples in one row, under three budgets (positions, windows, targets)."""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from data_pipelines.encode import Budget, EncodedExample
from mufun_jax.batch import Batch


def pack_rows(sizes: Int[np.ndarray, "examples 3"], budget: Budget) -> list[list[int]]:
    """Best fit decreasing: the largest examples open rows, and each goes where the fewest positions stay free.

    `sizes` are positions, windows and targets. Every example is in one row. Rows come in the order in which their
    first example came in, so a shuffle stays a shuffle.
    """
    limits = np.array([budget.positions, budget.windows, budget.targets])
    assert (sizes <= limits).all(), "an example that fits no row was not left out"
    needs = sizes.tolist()
    order = np.argsort(-(sizes / limits).max(axis=1), kind="stable").tolist()
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # free positions of a row and its number, least first
    left: list[list[int]] = []  # free windows and targets of each row
    for example in order:
        positions, windows, targets = needs[example]
        for place in range(bisect_left(free, (positions, -1)), len(free)):
            room, row = free[place]
            if left[row][0] >= windows and left[row][1] >= targets:
                free.pop(place)
                break
        else:
            room, row = budget.positions, len(rows)
            rows.append([])
            left.append([budget.windows, budget.targets])
        rows[row].append(example)
        left[row][0] -= windows
        left[row][1] -= targets
        insort(free, (room - positions, row))
    return [sorted(row) for row in sorted(rows, key=min)]


def build_row(
    examples: Sequence[EncodedExample],
    budget: Budget,
    window_samples: int,
    tokens_per_window: int,
    sets: Sequence[int] | None = None,
) -> Batch:
    """One row of a Batch (fields without their leading R). Without examples it is empty: it teaches nothing.

    `sets`: of each example the set it is from, by its place in the mixture; without, the first.
    """
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
        target_set=np.zeros(T, np.int32),
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
        row.target_set[targets_at] = sets[segment - 1] if sets is not None else 0
        position, window, target = at.stop, window + len(example.samples), targets_at.stop
    return row
