"""A workdir as a long run leaves it, made up: six stages, restarts, a rollback, evaluations. To look at the page:

python -m tests.report.rich_run FOLDER [STEPS]
mufun report FOLDER
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mufun_jax.config import RunConfig
from mufun_jax.config_file import load_run_config, to_json

ROOT = Path(__file__).parent.parent.parent
START = 1_790_000_000.0
SHARES = (0.03, 0.25, 0.2, 0.08, 0.22, 0.22)  # of the steps, for the six stages
LEVELS = ((6.2, 5.7), (5.6, 0.46), (2.4, 0.75), (1.5, 1.05), (1.1, 0.44), (0.6, 0.36))  # loss from, to
HARDER = {"train_notes": 0.7, "train_excerpts": 1.25, "train_songs": 1.6, "train_transcription": 1.0}


@dataclass
class RichRun:
    """Writes the files of a run of so many steps; `ends` false: it is going on in the fifth stage."""

    workdir: Path
    steps: int = 6_000
    restarts: tuple[float, ...] = (0.21, 0.48, 0.74)  # after which shares of the run a session ended
    rollback: float = 0.37  # after which share the loss went astray
    ends: bool = True
    seed: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def write(self) -> None:
        self.workdir.mkdir(parents=True, exist_ok=True)
        run = load_run_config(ROOT / "configs" / "nano.py")
        plan = self._plan(run)
        (self.workdir / "config.json").write_text(json.dumps(to_json(run)))
        (self.workdir / "plan.json").write_text(json.dumps({"steps": plan}))
        self._write_data(run)
        with (self.workdir / "metrics.jsonl").open("w") as lines:
            for line in self._lines(run, plan):
                lines.write(json.dumps(line) + "\n")
        with (self.workdir / "events.jsonl").open("w") as lines:
            for event in self.events:
                lines.write(json.dumps(event) + "\n")

    def _plan(self, run: RunConfig) -> dict[str, int]:
        return {name: max(4, round(self.steps * share)) for name, share in zip(run.curriculum, SHARES, strict=True)}

    def _write_data(self, run: RunConfig) -> None:
        hours = {"train_notes": 1.83, "train_transcription": 2.13, "train_excerpts": 1.41, "train_songs": 0.73}
        (self.workdir / "data").mkdir(exist_ok=True)
        for name in run.curriculum:
            sets = {
                each: {
                    "examples": round(1_900 * hours[each]),
                    "hours": hours[each],
                    "left_out": ["one"] * (each == "train_songs"),
                }
                for each in run.stages[name].mixture
            }
            (self.workdir / "data" / f"{name}.json").write_text(json.dumps(sets))

    def _lines(self, run: RunConfig, plan: dict[str, int]) -> Iterator[dict[str, Any]]:
        random = np.random.default_rng(self.seed)
        total = sum(plan.values())
        last = total if self.ends else round(0.83 * total)
        stops = [round(share * total) for share in self.restarts if share * total < last]
        astray, every = round(self.rollback * total), max(5, total // 60)
        clock, session, done = START, 0, 0
        self._event(clock, session, "start", 0, "4 processes, 64 devices", resumed_from=None)
        clock += 140.0
        for (name, steps), (high, low) in zip(plan.items(), LEVELS, strict=True):
            stage = run.stages[name]
            if done >= last:
                break
            self._event(clock, session, "stage", done, f"stage {name}, {steps:,} steps", stage=name, steps=steps)
            for step in range(1, steps + 1):
                done += 1
                if done > last:
                    break
                line = _line(random, stage, name, step, steps, high, low) | {"global_step": done}
                if astray - 6 <= done < astray:
                    line["loss"] = line["loss"] * (2 + done - astray + 6) if "loss" in line else 0
                    line["gradient_norm"] *= 40
                if astray <= done < astray + 4:
                    line = {key: line[key] for key in ("stage", "step", "global_step", "seconds")}
                    line["skipped"] = "the loss was 9.31, 6.2 deviations above its average: this batch is passed over"
                clock += line["seconds"]
                yield line
                if done == astray:
                    clock += 30
                    said = f"the loss rose to 9.31; back to the checkpoint of step {done - 40:,}"
                    self._event(clock, session, "rollback", done + 9, said)
                if done % every == 0:
                    clock += 6
                    self._event(clock, session, "saved", done, f"checkpoint of step {done:,}", seconds=6.0)
                if done in stops:
                    clock, session = self._restart(clock, session, done, every)
        if self.ends:
            self._event(clock + 20, session, "end", total, "the model is in runs/mine/checkpoint")

    def _restart(self, clock: float, session: int, done: int, every: int) -> tuple[float, int]:
        """A session ends some steps after its last save, in one of three ways, and the next begins."""
        clock += 1.1 * every / 2
        if session % 3 == 0:
            self._event(clock, session, "preempted", done + every // 2, "SIGTERM: the state of step is saved")
        elif session % 3 == 1:
            self._event(clock, session, "stalled", done + every // 2, "no step for 600 s; the process ends itself")
        clock += (300.0, 2_400.0, 60.0)[session % 3]
        self._event(clock, session + 1, "start", done, f"goes on from step {done:,}", resumed_from=done)
        if session == 1:
            self._event(clock + 9, session + 1, "damaged", done, "checkpoint: a file lacks 4,096 bytes; put aside")
        return clock + 140.0, session + 1

    def _event(self, time: float, session: int, event: str, step: int, message: str, **more: Any) -> None:
        about = {"time": time, "session": session, "event": event, "global_step": step, "message": message}
        if event == "start":
            about |= {"processes": 4, "devices": 64, "device_kind": "TPU v5 lite"}
        self.events.append(about | more)


def _line(
    random: np.random.Generator, stage: Any, name: str, step: int, steps: int, high: float, low: float
) -> dict[str, Any]:
    """One step: losses fall as a power of the step, with noise."""
    through = step / steps
    level = low + (high - low) * (1 + 40 * through) ** -0.85 * (1 - 0.5 * through)
    sets = {each: level * HARDER[each] * float(np.exp(random.normal(0, 0.12))) for each in stage.mixture}
    loss = sum(sets.values()) / len(sets) * (2.5 if random.random() < 3e-4 else 1.0)
    warm = min(1.0, through / 0.03)
    rate = stage.learning_rate * warm * 0.5 * (1 + np.cos(np.pi * through))
    seconds = 41.0 if step == 1 else 1.02 + 0.05 * abs(random.normal()) + (1.5 if random.random() < 2e-3 else 0)
    norm = 2.2 * level**0.5 * float(np.exp(random.normal(0, 0.25))) * (1 + 5 * (through < 0.01))
    parts = {"encoder": 0.3, "connector": 0.75, "decoder": 0.55}
    rows = stage.positions * stage.rows
    line = {
        "stage": name,
        "step": step,
        "seconds": seconds,
        "loss": loss,
        "gradient_norm": norm,
        "learning_rate": rate,
        "positions_used": 0.93 + 0.03 * random.random(),
        "windows_used": 0.86 + 0.08 * random.random(),
        "target_tokens": 90.0,
        "token_accuracy": float(np.clip(1 - level / 5 + 0.02 * random.normal(), 0, 1)),
        "examples": 22.0,
        "dropped_windows": 0.0,
        "data_wait_seconds": 0.004 * float(np.exp(random.normal())),
        **{f"gradient_norm_{part}": norm * parts[part] for part in stage.trained_parts},
        "loss_of": sets if step % 7 else dict(list(sets.items())[:1]),
        "tokens_per_second": 64 * rows / seconds,
        "audio_seconds_per_second": 64 * rows / 10 / seconds,
        "mfu": 0.47 / seconds * (1.05 if stage.positions > 500 else 0.98),
        "memory_gib": 11.4 if stage.positions > 500 else 8.9,
        "goodput": 0.97 - 0.06 * random.random() * (1 - through) ** 3,
    }
    if step % max(2, steps // 9) == 0:
        line["evaluation_loss"] = level * 1.12
    return line


if __name__ == "__main__":
    RichRun(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 6_000).write()
