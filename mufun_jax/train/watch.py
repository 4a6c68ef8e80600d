"""A watch over the processes of a run: which one does not move, and what it was doing.

Each process writes where it is to `WORKDIR/processes/pulse-I.json`, every few seconds, from a thread. The first two
read all of them. When nothing has moved for `stall_minutes` they name who holds the others up: a process whose pulse
has stopped (its host is gone or frozen), or else the one that has come least far. After `end_minutes` they end the
run with the exit code that has it started again. What takes long by its nature (compiling, reading a checkpoint) has
that long.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from mufun_jax.config import WatchConfig
from mufun_jax.errors import RESTART, LostProcessError
from mufun_jax.sharding.processes import is_lost_connection

_WATCHERS = 2  # the first processes; the second one is for a first one that has stopped


@dataclass
class _Seen:
    """The last pulse of a process, and when this process's clock said that it changed."""

    beat: int = -1
    beat_changed: float = 0.0
    moves: int = -1
    moved: float = 0.0
    place: str = "not started"
    slow: bool = True
    host: str = "?"


class Watch:
    """Runs from its `with` on. `at` says where this process is."""

    def __init__(
        self,
        workdir: Path,
        config: WatchConfig,
        on_stall: Callable[[str], None],
        end: Callable[[int], None] = os._exit,
    ):
        self._folder, self._on_stall, self._end = workdir / "processes", on_stall, end
        self._stall, self._patience = 60 * config.stall_minutes, 60 * config.end_minutes
        self._period = min(5.0, self._stall / 8)
        self._number, self._count = jax.process_index(), jax.process_count()
        self._place, self._slow, self._moves, self._beat = "starting", True, 0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._seen = [_Seen() for _ in range(self._count)]
        self._told = 0.0

    def __enter__(self) -> "Watch":
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.monotonic()
        self._seen = [_Seen(beat_changed=now, moved=now) for _ in range(self._count)]
        self._write_pulse()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def at(self, place: str, *, slow: bool = False) -> None:
        """This process has come to `place`, for instance "step 12". Cheap."""
        self._place, self._slow = place, slow
        self._moves += 1

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Where a collective fails inside because another process is gone, that one is named instead.

        Raises LostProcessError.
        """
        try:
            yield
        except Exception as error:
            if not is_lost_connection(error):
                raise
            raise LostProcessError(f"the connection to another process was lost; {self._who_is_gone()}") from None

    def _who_is_gone(self) -> str:
        """Looks for a few beats whose pulse has stopped, and says so in a sentence."""
        before = [self._beat_of(number) for number in range(self._count)]
        time.sleep(1.5 * self._period)
        gone = [n for n in range(self._count) if self._beat_of(n) == before[n] and n != self._number]
        time.sleep(self._period)  # the others are looking too: who has found out stays a little
        if not gone:
            return "all the others still give signs of life: see their logs"
        named = ", ".join(f"{n} (on {self._seen[n].host})" for n in gone[:8])
        return f"process {named} of {self._count} gives no sign of life"

    def _beat_of(self, number: int) -> int | None:
        pulse = _read_pulse(self._folder / f"pulse-{number}.json")
        if pulse is not None:
            self._seen[number].host = pulse["host"]
        return pulse["beat"] if pulse is not None else None

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            try:
                self._write_pulse()
                if self._number < _WATCHERS:
                    self._look(time.monotonic())
            except OSError as error:  # a disk that is full or gone is for the run itself to say
                print(f"watch: {error}", file=sys.stderr, flush=True)

    def _write_pulse(self) -> None:
        self._beat += 1
        pulse = {"beat": self._beat, "moves": self._moves, "place": self._place, "slow": self._slow}
        path = self._folder / f"pulse-{self._number}.json"
        aside = path.with_name(f".{path.name}")
        aside.write_text(json.dumps({**pulse, "host": socket.gethostname(), "pid": os.getpid()}))
        aside.rename(path)

    def _look(self, now: float) -> None:
        for number, seen in enumerate(self._seen):
            self._update(seen, self._folder / f"pulse-{number}.json", now)
        still = min(now - seen.moved for seen in self._seen)
        slow = any(seen.slow for seen in self._seen)
        silent = [i for i, seen in enumerate(self._seen) if now - seen.beat_changed > self._stall]
        if still <= self._stall or (slow and not silent and still <= self._patience):
            return
        if now - self._told > self._stall:
            self._told = now
            self._on_stall(self._blame(silent, now))
        if still > self._patience:
            print(
                f"watch: nothing has moved for {still:.0f} s; ending to be started again", file=sys.stderr, flush=True
            )
            self._end(RESTART)

    def _update(self, seen: _Seen, path: Path, now: float) -> None:
        pulse = _read_pulse(path)
        if pulse is None:
            return
        if pulse["beat"] != seen.beat:
            seen.beat, seen.beat_changed, seen.host = pulse["beat"], now, pulse["host"]
        if pulse["moves"] != seen.moves:
            seen.moves, seen.moved = pulse["moves"], now
            seen.place, seen.slow = pulse["place"], pulse["slow"]

    def _blame(self, silent: list[int], now: float) -> str:
        """A sentence that names who does not move."""
        if silent:
            who = silent
            what = "gives no sign of life: its host is gone or frozen"
        else:
            least = min(seen.moves for seen in self._seen)
            who = [i for i, seen in enumerate(self._seen) if seen.moves == least]
            what = "has come least far" if len(who) < self._count else "has not moved"
        named = ", ".join(f"{i} (on {self._seen[i].host}, at: {self._seen[i].place})" for i in who[:8])
        more = f" and {len(who) - 8} more" if len(who) > 8 else ""
        still = min(now - seen.moved for seen in self._seen)
        return f"nothing has moved for {still:.0f} s: process {named}{more} of {self._count} {what}"


def _read_pulse(path: Path) -> dict[str, Any] | None:
    """A pulse; None for one that is missing or half written."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
