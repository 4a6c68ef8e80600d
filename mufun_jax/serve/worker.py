"""One thread owns the model: jobs of all clients come to it one after another, and those of clients that have gone end.

The model is loaded for the first job, and unloaded when there has been none for a while.
"""

import asyncio
import gc
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mufun_jax.errors import UserError
from mufun_jax.generate.chat import MuFun

Item = TypeVar("Item")
_log = logging.getLogger(__name__)


class BusyError(UserError):
    """More jobs are waiting than the server takes."""


class ClosedError(UserError):
    """The server is going down, or has no model."""


@dataclass(frozen=True)
class _End:
    """The last thing in a job's queue: it is done, or has failed."""

    error: Exception | None


class Job(Generic[Item]):
    """What a client has asked for. Iterate over it for what comes, in the event loop that submitted it.

    Where it was cancelled the iteration just ends.
    """

    def __init__(self, work: Callable[[MuFun], Iterator[Item]], afterwards: Callable[[], None]):
        self._work, self._afterwards = work, afterwards
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item | _End] = asyncio.Queue()
        self._cancelled = threading.Event()

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for item in self.paced(None):
            assert item is not None
            yield item

    async def paced(self, seconds: float | None) -> AsyncIterator[Item | None]:
        """What comes, and None whenever nothing has come for so long."""
        while True:
            try:
                item = await asyncio.wait_for(self._items.get(), seconds)
            except TimeoutError:
                yield None
                continue
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def cancel(self) -> None:
        """Ends it with the next token."""
        self._cancelled.set()

    def run(self, model: MuFun) -> None:
        """Called by the worker."""
        items = self._work(model)
        try:
            while not self._cancelled.is_set() and (item := next(items, None)) is not None:
                self._put(item)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def end(self, error: Exception | None) -> None:
        """Called by the worker, once, whether it ran or not."""
        self._afterwards()
        self._put(_End(error))

    def _put(self, item: "Item | _End") -> None:
        with suppress(RuntimeError):  # the event loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


class Worker:
    """Runs jobs in a thread of its own, from `start` to `close`."""

    def __init__(self, load: Callable[[], MuFun], *, most_waiting: int, idle_seconds: int | float):
        self._load, self._most_waiting, self._idle_seconds = load, most_waiting, idle_seconds
        self._line: deque[Job[Any]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._model: MuFun | None = None
        self._compiling: str | None = None
        self.running: Job[Any] | None = None

    def doing(self, job: Job[Any]) -> str:
        """What a job waits for, in words."""
        with self._changed:
            before = self._line.index(job) + (self.running is not None) if job in self._line else 0
        if before:
            return f"Waiting for {before} other" + ("s" if before > 1 else "")
        if self._model is None:
            return "Loading the model"
        return "Listening" if self._compiling is None else f"Compiling, once, for {self._compiling}"

    @property
    def loaded(self) -> bool:
        return self._model is not None

    @property
    def waiting(self) -> int:
        return len(self._line)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the job that runs with its next token; those that wait are refused."""
        with self._changed:
            self._closing = True
            waiting, running = list(self._line), self.running
            self._line.clear()
            self._changed.notify_all()
        if running is not None:
            running.cancel()
        for job in waiting:
            job.end(ClosedError("the server is going down"))
        self._thread.join(timeout=60)

    def submit(
        self, work: Callable[[MuFun], Iterator[Item]], afterwards: Callable[[], None] = lambda: None
    ) -> Job[Item]:
        """Puts a job in the line; `afterwards` is called when it has ended, in whatever way.

        Raises BusyError where the line is full, ClosedError where the server goes down.
        """
        with self._changed:
            if self._closing:
                raise ClosedError("the server is going down")
            if len(self._line) >= self._most_waiting:
                raise BusyError(f"{self._most_waiting} questions are waiting already; ask again in a while")
            job = Job(work, afterwards)
            self._line.append(job)
            self._changed.notify_all()
        return job

    def cancel(self, job: Job[Any]) -> None:
        """Takes a job out of the line, or ends it with its next token; does nothing where it has ended."""
        job.cancel()
        with self._changed:
            if job not in self._line:
                return
            self._line.remove(job)
        job.end(None)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            error: Exception | None = None
            try:
                job.run(self._loaded())
            except Exception as failure:  # noqa: BLE001  whoever waits for the job gets it
                error = failure
            finally:
                self.running = None
                job.end(error)
                del job

    def _next(self) -> Job[Any] | None:
        """The next job; None where the server goes down. A model that waits too long for one is unloaded."""
        with self._changed:
            while not self._line and not self._closing:
                if not self._changed.wait(None if self._model is None else self._idle_seconds):
                    self._model = None
                    gc.collect()
            if self._closing:
                return None
            self.running = self._line.popleft()
            return self.running

    def _loaded(self) -> MuFun:
        if self._model is None:
            try:
                self._model = self._load()
            except Exception as error:
                _log.exception("the model cannot be loaded")
                raise ClosedError("the model cannot be loaded; the server's log says why") from error
            self._model.engine.on_compile = self._on_compile
        return self._model

    def _on_compile(self, what: str, seconds: float | None) -> None:
        self._compiling = what if seconds is None else None
