"""One thread owns the model: jobs of all clients come to it one after another, and those of clients that have gone end.

The model is loaded for the first job, and unloaded when there has been none for a while.
"""

import gc
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from mufun_jax.errors import UserError
from mufun_jax.generate.chat import MuFun

Item = TypeVar("Item")
_LOOK = 0.2  # seconds between two looks at whether there is something to do


class BusyError(UserError):
    """More jobs are waiting than the server takes."""


class ClosedError(UserError):
    """The server is going down."""


@dataclass(frozen=True)
class _End:
    """The last thing in a job's queue: it is done, or has failed."""

    error: BaseException | None


@dataclass
class Job(Generic[Item]):
    """What a client has asked for. Iterate over it for what comes; `cancel` it when nobody waits any more."""

    work: Callable[[MuFun], Iterator[Item]]
    _items: "queue.SimpleQueue[Item | _End]" = field(default_factory=queue.SimpleQueue)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self) -> None:
        """Ends it with the next token; does nothing where it has ended."""
        self._cancelled.set()

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._items.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def run(self, model: MuFun) -> None:
        """Called by the worker."""
        error: BaseException | None = None
        items = iter(())
        try:
            items = self.work(model)
            while not self._cancelled.is_set():
                try:
                    self._items.put(next(items))
                except StopIteration:
                    break
        except Exception as failure:  # noqa: BLE001  whoever waits for the job gets it
            error = failure
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
            self._items.put(_End(error))

    def refuse(self, error: BaseException) -> None:
        """Called by the worker, instead of `run`."""
        self._items.put(_End(error))

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()


class Worker:
    """Runs jobs in a thread of its own, from `start` to `close`."""

    def __init__(self, load: Callable[[], MuFun], *, most_waiting: int, idle_seconds: float):
        self._load, self._idle_seconds = load, idle_seconds
        self._jobs: queue.Queue[Job[Any]] = queue.Queue(maxsize=most_waiting)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._model: MuFun | None = None
        self.running: Job[Any] | None = None

    @property
    def loaded(self) -> bool:
        return self._model is not None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the job that runs with its next token; those that wait are refused."""
        self._closing.set()
        running = self.running
        if running is not None:
            running.cancel()
        self._thread.join(timeout=60)

    def submit(self, work: Callable[[MuFun], Iterator[Item]]) -> Job[Item]:
        """Puts a job in the line. Raises BusyError where that is full, ClosedError where the server goes down."""
        if self._closing.is_set():
            raise ClosedError("the server is going down")
        job = Job(work)
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            raise BusyError(f"{self._jobs.maxsize} questions are waiting already; ask again in a while") from None
        return job

    def _run(self) -> None:
        last = time.monotonic()
        while not self._closing.is_set():
            try:
                job = self._jobs.get(timeout=_LOOK)
            except queue.Empty:
                if self._model is not None and time.monotonic() - last > self._idle_seconds:
                    self._model = None
                    gc.collect()
                continue
            self._answer(job)
            last = time.monotonic()
        while not self._jobs.empty():
            self._jobs.get().refuse(ClosedError("the server is going down"))

    def _answer(self, job: Job[Any]) -> None:
        if job.cancelled:
            job.refuse(ClosedError("nobody waits for it"))
            return
        self.running = job
        try:
            if self._model is None:
                self._model = self._load()
        except Exception as error:  # noqa: BLE001  the client is told, and the next one tries again
            job.refuse(error)
        else:
            job.run(self._model)
        finally:
            self.running = None
