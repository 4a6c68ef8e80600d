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
from mufun_jax.train.metrics import lines_and_ends

OnEvent = Callable[[str, str], None]  # event, message


class EventLog:
    """Appends events, on process 0; `on_event` is told of each. Threads may share it."""

    def __init__(self, workdir: Path, on_event: OnEvent = lambda event, message: None):
        self._on_event, self._lock, self._file = on_event, threading.Lock(), None
        self.session, self.began = 0, time.time()
        self.reached = 0  # steps of all stages that are done
        path, kept = workdir / "events.jsonl", 0
        for line, end in lines_and_ends(path):
            self.session, self.began, kept = line["session"] + 1, min(self.began, line["time"]), end
        if is_first():
            self._file = path.open("a", encoding="utf-8")
            self._file.truncate(kept)  # half a line, where a kill or a full disk cut the last one short

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
