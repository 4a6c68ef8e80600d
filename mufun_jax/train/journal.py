"""The journal of a run: every step's line, in `metrics.jsonl` and on the dashboards, with rates and goodput.

Goodput is the part of the time since the run was first started that went into steps which count: not into starting,
compiling, saving, evaluating, nor into steps that were taken again or time when no process ran.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.sharding.processes import is_first
from mufun_jax.train.dashboards import Dashboards
from mufun_jax.train.events import EventLog
from mufun_jax.train.loop import StepMetrics
from mufun_jax.train.metrics import MetricsLog
from mufun_jax.train.throughput import Throughput, peak_memory

OnStep = Callable[[str, int, int, dict[str, Any]], None]


class Journal:
    """Goes on after the global step `resume_after`; lines after it are taken back."""

    def __init__(self, run: RunConfig, workdir: Path, events: EventLog, resume_after: int, on_step: OnStep):
        self._on_step = on_step
        self._dashboards = Dashboards(workdir, run.dashboards, run, resume_after)
        self.metrics = MetricsLog(workdir / "metrics.jsonl", resume_after)
        self._started, self._wall = time.monotonic(), max(0.0, time.time() - events.began)

    def write(self, line: dict[str, Any], steps: int) -> None:
        """A step's line, of a stage of so many steps."""
        line["goodput"] = round(self.goodput(line.get("seconds", 0.0)), 4)
        self.metrics.write(line)
        self._dashboards.write(line)
        if is_first():
            self._on_step(line["stage"], line["step"], steps, line)

    def goodput(self, more: float = 0.0) -> float:
        """With so many seconds of steps more than are written. A wall clock that was set back makes it 1 at most."""
        useful = self.metrics.seconds + more
        return useful / max(useful, self._wall + time.monotonic() - self._started, 1e-9)

    def sync(self) -> None:
        """What was written is on the disk when this returns."""
        self.metrics.sync()
        self._dashboards.flush()

    def close(self) -> None:
        self.metrics.close()
        self._dashboards.close()


class StageClock:
    """Where the time of a stage goes: into steps, or aside, into compiling, evaluating and saving."""

    def __init__(self, run: RunConfig, stage: StageConfig, devices: Sequence[Any]):
        self._sets = list(stage.mixture)
        self._throughput = Throughput(run.model, stage, devices)
        self._device = next(device for device in devices if device.process_index == device.client.process_index())
        self._marked, self._aside = time.perf_counter(), {}

    def aside(self, what: str, seconds: float) -> None:
        """So many seconds since the last step's line were not its own: "compile", "evaluation", "save"."""
        self._aside[what] = self._aside.get(what, 0.0) + seconds

    def line(self, metrics: StepMetrics) -> dict[str, Any]:
        """The metrics of a finished step, with its seconds, rates, and the loss of each set."""
        now = time.perf_counter()
        seconds = max(now - self._marked - sum(self._aside.values()), 1e-9)
        rest = {f"{what}_seconds": spent for what, spent in self._aside.items()}
        self._marked, self._aside = now, {}
        values = dict(metrics)
        losses, targets = values.pop("set_losses"), values.pop("set_targets")
        loss_of = {
            name: float(loss / count)
            for name, loss, count in zip(self._sets, losses, targets, strict=False)
            if count > 0
        }
        positions, audio = values.pop("positions"), values.pop("audio_seconds")
        rates = self._throughput.rates(seconds, positions, audio)
        return {
            "seconds": seconds,
            **rest,
            **values,
            "loss_of": loss_of,
            **rates,
            "memory_gib": peak_memory(self._device),
        }
