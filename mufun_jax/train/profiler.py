"""Profiles of a few steps, in `WORKDIR/profile`: those asked for on the command line, or the next ones after SIGUSR1.

TensorBoard's profile plugin and xprof read them.
"""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import jax

_ON_SIGNAL = 5  # steps


@dataclass(frozen=True)
class Steps:
    """Steps after `first` up to `last`, of all stages."""

    first: int
    last: int


class Profiler:
    """Each process profiles itself; SIGUSR1 is for the one that gets it."""

    def __init__(self, workdir: Path, steps: Steps | None, on_event: Callable[[str, str], None]):
        self._folder, self._wanted, self._on_event = workdir / "profile", steps, on_event
        self._asked = False
        self._running = False
        self._before: object = None

    def __enter__(self) -> "Profiler":
        if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGUSR1"):
            self._before = signal.signal(signal.SIGUSR1, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGUSR1, self._before)  # pyright: ignore[reportArgumentType]
        if self._running:
            jax.profiler.stop_trace()

    def step_begins(self, global_step: int) -> None:
        """Starts or ends a profile before the step of that number."""
        if self._asked and not self._running:
            self._asked, self._wanted = False, Steps(global_step - 1, global_step - 1 + _ON_SIGNAL)
        wanted = self._wanted
        if wanted is None:
            return
        if not self._running and wanted.first < global_step <= wanted.last:
            self._folder.mkdir(exist_ok=True)
            jax.profiler.start_trace(self._folder)
            self._running = True
        elif self._running and global_step > wanted.last:
            self._end()

    def stage_ends(self) -> None:
        """A profile ends with its stage."""
        if self._running:
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        self._running, self._wanted = False, None
        self._on_event("profile", f"profiled; look at it with: tensorboard --logdir {self._folder}")

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
