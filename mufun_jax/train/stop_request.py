"""SIGTERM and SIGINT as a wish to stop: the step is finished, everything is saved, and the exit code says so.

Clouds send SIGTERM to a machine that they are about to take away, half a minute or more before.
"""

import os
import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils

from mufun_jax.errors import StoppedRunError


class StopRequest:
    """Listens from its `with` on. Before the first step there is nothing to save: a signal then ends the run at once.

    With several processes JAX's preemption service listens to SIGTERM instead: whichever process gets it, all stop
    after the same step.
    """

    def __init__(self) -> None:
        self._name: str | None = None  # of the signal that came
        self._at_once = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            signals = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
            self._before = {number: signal.signal(number, self._heard) for number in signals}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # pyright: ignore[reportArgumentType]

    def stepping(self) -> None:
        """From here on there are steps to be saved."""
        self._at_once = False

    def reached(self, step: int) -> bool:
        """Whether to stop after this step. The same on all processes; `step` rises from call to call."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._name is not None

    def error(self, what: str) -> StoppedRunError:
        """`what` was done before stopping, for instance "step 12 is saved"."""
        name = self._name or "SIGTERM"
        return StoppedRunError(f"stopped by {name}; {what}: the same command goes on from there", name)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        again = self._name is not None
        self._name = signal.Signals(number).name
        if self._at_once or again:
            raise self.error("nothing was under way" if self._at_once else "the newest checkpoint stays")
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # for the service, which tells the others
