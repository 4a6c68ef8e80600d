"""What happened to a run, in `WORKDIR/events.jsonl`: one JSON object an event, never taken back.

time         seconds since the epoch
session      how many starts of the run came before this one
event        start, stage, saved, damaged, skipped, rollback, preempted, stalled, profile, failed, end
global_step  steps of all stages that were done
message      one sentence
"""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mufun_jax.sharding.processes import is_first
from mufun_jax.train.metrics import read_metrics

OnEvent = Callable[[str, str], None]  # event, message


class EventLog:
    """Appends events, on process 0; `on_event` is told of each. Threads may share it."""

    def __init__(self, workdir: Path, on_event: OnEvent = lambda event, message: None):
        self._on_event, self._lock, self._file = on_event, threading.Lock(), None
        self.session, self.began = 0, time.time()
        self.reached = 0  # steps of all stages that are done
        path = workdir / "events.jsonl"
        for line in read_metrics(path):
            self.session, self.began = line["session"] + 1, min(self.began, line["time"])
        if is_first():
            self._file = path.open("a", encoding="utf-8")
            if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
                self._file.write("\n")  # a kill cut the last line short

    def write(self, event: str, message: str, **more: Any) -> None:
        """`more` may have a `global_step` of its own."""
        with self._lock:
            if self._file is not None:
                place = {"time": time.time(), "session": self.session, "event": event, "global_step": self.reached}
                self._file.write(json.dumps({**place, "message": message, **more}, ensure_ascii=False) + "\n")
                self._file.flush()
                os.fsync(self._file.fileno())
                self._on_event(event, message)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
