"""What surviving costs: saving while training, and the time from a restart to the first step, on the nano config.

    make bench                                  (or python -m tests.benchmarks.survival --saves 8)

A run saves every 20 steps. Each save is charged with what the step that begins it and those after it, while files are
still written, take longer than the median of the other steps around it. Wanted: under 3 % of the time of 20 steps. A
stopped run is started again as a user does, with the programs that it compiled before; wanted: under 30 s to its first
step.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mufun_jax.sharding.mesh import simulate_devices
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.metrics import read_metrics
from tests.faults.nano_runs import CONFIG, nano_run, write_corpus

MOST_COST, LONGEST_RESTART = 0.03, 30.0
EVERY, DURING = 20, 6  # steps between saves, and those that a save may slow down, its own included
STAGE = ("curriculum=('finetune_short',)", "stages.finetune_short.rows=6", f"checkpoint.every_steps={EVERY}")


def measure_saving(corpus: Path, folder: Path, saves: int) -> tuple[float, np.ndarray]:
    """Seconds of a step without a save (the median), and of each save what it costs, as a share of so many steps."""
    steps = (saves + 2) * EVERY
    run = nano_run(corpus, *STAGE, f"stages.finetune_short.steps={steps}")
    ends: list[float] = []
    train_curriculum(run, folder / "saving", Callbacks(on_step=lambda *_: ends.append(time.perf_counter())))
    seconds = np.diff(ends)  # seconds[n] is of step n + 2: from the end of the one before
    # A step is told of before its save begins: the save of step s is in the time of step s + 1.
    first = 2 * EVERY - 1  # the first save's steps also compile
    periods = seconds[first : first + saves * EVERY].reshape(saves, EVERY)
    quiet = np.median(periods[:, DURING:], axis=1, keepdims=True)
    return float(np.median(quiet)), (periods[:, :DURING] - quiet).sum(1) / (EVERY * quiet[:, 0])


def command(corpus: Path, workdir: Path, last: int) -> list[str]:
    words = ["--set", f"data={corpus}", "--set", "checkpoint.every_steps=5", "--set", "curriculum=('finetune_short',)"]
    words += ["--set", f"stages.finetune_short.steps={last}"]
    return [sys.executable, "-m", "mufun_jax.cli", "train", "--config", str(CONFIG), "--workdir", str(workdir), *words]


def measure_restart(corpus: Path, folder: Path) -> float:
    """Seconds from the start of the command to the line of its first step, of a run killed after some steps."""
    workdir = folder / "restart"
    for resumed in (False, True):
        before = sum(1 for _ in read_metrics(workdir / "metrics.jsonl")) if resumed else 0
        started = time.perf_counter()
        process = subprocess.Popen(command(corpus, workdir, 1000), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        saved = list((workdir / "checkpoints").glob("*"))
        first = max((int(path.name) for path in saved if path.name.isdecimal()), default=0)
        wanted = first + 1 if resumed else 12
        while True:
            lines = list(read_metrics(workdir / "metrics.jsonl"))
            if lines and lines[-1]["global_step"] == wanted and (not resumed or len(lines) <= before):
                break
            time.sleep(0.02)
            assert process.poll() is None, "the run ended by itself"
        elapsed = time.perf_counter() - started
        process.kill()
        process.wait()
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=8)
    saves = parser.parse_args().saves
    logging.getLogger().addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder / "data")
        simulate_devices(nano_run(corpus).mesh)
        step, costs = measure_saving(corpus, folder, saves)
        print(
            f"a step {step:.3f} s; a save every {EVERY} costs {np.median(costs):.1%} of their time "
            f"({np.quantile(costs, 0.25):.1%} to {np.quantile(costs, 0.75):.1%}, the quartiles of {saves} saves), "
            f"wanted under {MOST_COST:.0%}"
        )
        restart = measure_restart(corpus, folder)
        print(f"restart to first step: {restart:.1f} s, wanted under {LONGEST_RESTART:.0f} s")


if __name__ == "__main__":
    main()
