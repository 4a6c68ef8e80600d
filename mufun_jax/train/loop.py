"""The training loop of one stage."""

import time
from collections.abc import Callable, Container, Iterator
from typing import Any

import numpy as np

from mufun_jax.batch import Batch
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.train.state import TrainState
from mufun_jax.train.step import Metrics

StepMetrics = dict[str, Any]  # numbers, and arrays of one number for each set of the mixture
TakeStep = Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]


def train_steps(
    state: TrainState,
    train_step: TakeStep,
    elements: Iterator[dict[str, Any]],
    rows: LocalRows,
    *,
    first: int,
    steps: int,
    skipped: Container[int],
    learning_rate: Callable[[int], Any],
    on_place: Callable[[int, str], None],
    pause_due: Callable[[int], bool],
    on_step: Callable[[int, StepMetrics, TrainState | None], None],
    on_skip: Callable[[int, TrainState | None], None],
) -> TrainState:
    """Takes steps `first` + 1 to `steps`, step n at `learning_rate(n - 1)`; the batch of a skipped one is thrown away.

    The host reads the metrics of step n - 1, loads batch n + 1 and sends it to the device while step n runs: the device
    waits only where `data_wait_seconds`, what the host waited for the loader, is longer than a step.

    `on_step` gets each finished step's number and metrics; where a pause is due, for an evaluation, a save or the end,
    before the next step is begun, and with the state after it. `on_place` is told where the loop is.
    """
    running: tuple[int, dict[str, Any]] | None = None

    def finish(paused: TrainState | None = None) -> None:
        nonlocal running
        if running is not None:
            (number, metrics), running = running, None
            on_place(number, "waiting for the devices")
            on_step(number, read_metrics(metrics), paused)

    for step in range(first + 1, steps + 1):
        on_place(step, "waiting for the batch")
        started = time.perf_counter()
        element = next(elements)
        counts = {name: element[name].sum() for name in ("examples", "dropped_windows", "audio_seconds")}
        counts["data_wait_seconds"] = time.perf_counter() - started
        if step in skipped:
            finish()
            on_skip(step, state if pause_due(step) else None)
            continue
        on_place(step, "sending the step off")
        state, metrics = train_step(state, rows.to_device(element["batch"]), learning_rate(step - 1))
        finish()
        running = step, {**metrics, **counts}
        if pause_due(step):
            finish(state)
    finish()
    return state


def read_metrics(metrics: dict[str, Any]) -> StepMetrics:
    """Waits for a step's metrics: numbers as such, the others as arrays."""
    values = {name: np.asarray(value) for name, value in metrics.items()}
    return {name: float(value) if value.ndim == 0 else value for name, value in values.items()}
