"""The training loop of one stage."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

from mufun_jax.batch import Batch
from mufun_jax.errors import UserError
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.train.state import TrainState
from mufun_jax.train.step import Metrics

StepMetrics = dict[str, float]
TakeStep = Callable[[TrainState, Batch, Any], tuple[TrainState, Metrics]]


class NotFiniteError(UserError):
    """The loss or the gradient is not a number."""


def train_steps(
    state: TrainState,
    train_step: TakeStep,
    elements: Iterator[dict[str, Any]],
    rows: LocalRows,
    *,
    first: int,
    steps: int,
    learning_rate: Callable[[int], Any],
    on_step: Callable[[int, StepMetrics], None],
    save_due: Callable[[int], bool],
    save: Callable[[int, TrainState], None],
) -> TrainState:
    """Takes steps `first` + 1 to `steps`, step n at `learning_rate(n - 1)`.

    The host reads the metrics of step n - 1, loads batch n + 1 and sends it to the device while step n runs: the device
    waits only where `data_wait_seconds`, what the host waited for the loader, is longer than a step.

    `on_step` gets each finished step's number and metrics. Where a save is due, the step's metrics are read first:
    a checkpoint never holds a step that was not logged, nor one that was not finite.
    Raises NotFiniteError, with the step, for a loss that is not finite.
    """
    running: tuple[int, dict[str, Any]] | None = None
    for step in range(first + 1, steps + 1):
        started = time.perf_counter()
        element = next(elements)
        waited = time.perf_counter() - started
        state, metrics = train_step(state, rows.to_device(element["batch"]), learning_rate(step - 1))
        if running is not None:
            on_step(running[0], read_metrics(*running))
        counts = {"examples": element["examples"].sum(), "dropped_windows": element["dropped_windows"].sum()}
        running = step, {**metrics, **counts, "data_wait_seconds": waited}
        if save_due(step):
            on_step(step, read_metrics(*running))
            running = None
            save(step, state)
    if running is not None:
        on_step(running[0], read_metrics(*running))
    return state


def read_metrics(step: int, metrics: dict[str, Any]) -> StepMetrics:
    """Waits for a step's metrics and checks them."""
    values = {name: float(value) for name, value in metrics.items()}
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(values[name]):
            raise NotFiniteError(f"step {step}: {name} is {values[name]}; lower the learning rate, or look at the data")
    return values
