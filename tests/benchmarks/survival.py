"""What surviving costs: saving while training, and the time from a restart to the first step, on the nano config.

    make bench                                  (or python -m tests.benchmarks.survival --rounds 5)

Steps with a save every 20 and steps without take turns. Wanted: saving costs under 3 % of the time of a step. A stopped
run is started again as a user does, with the programs that it compiled before; wanted: under 30 s to its first step.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mufun_jax.config import RunConfig
from mufun_jax.sharding.mesh import simulate_devices
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.metrics import read_metrics
from tests.faults.nano_runs import CONFIG, nano_run, write_corpus

MOST_COST, LONGEST_RESTART = 0.03, 30.0
EVERY, STEPS, WARMUP = 20, 105, 5
STAGE = ("curriculum=('finetune_short',)", "stages.finetune_short.rows=6", f"stages.finetune_short.steps={STEPS}")


def seconds_a_step(run: RunConfig, workdir: Path) -> float:
    """Of the steps after the first ones, saves included."""
    times: list[float] = []
    train_curriculum(run, workdir, Callbacks(on_step=lambda *_: times.append(time.perf_counter())))
    # The last step's line is written before the stage's end is saved, as in both kinds of runs.
    return (times[-1] - times[WARMUP - 1]) / (len(times) - WARMUP)


def measure_saving(corpus: Path, folder: Path, rounds: int) -> list[tuple[float, float]]:
    """Seconds a step with saves and without, in each round; which comes first changes."""
    measured = []
    for number in range(rounds + 1):
        found = {}
        for every in (EVERY, 10 * STEPS)[:: 1 if number % 2 else -1]:
            run = nano_run(corpus, *STAGE, f"checkpoint.every_steps={every}")
            with tempfile.TemporaryDirectory(dir=folder) as workdir:
                found[every] = seconds_a_step(run, Path(workdir))
        if number:  # the first round compiles
            measured.append((found[EVERY], found[10 * STEPS]))
    return measured


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
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    logging.getLogger().addHandler(logging.NullHandler())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = write_corpus(folder / "data")
        simulate_devices(nano_run(corpus).mesh)
        measured = np.array(measure_saving(corpus, folder, rounds))
        costs = measured[:, 0] / measured[:, 1] - 1
        print(
            f"a step {np.median(measured[:, 1]):.3f} s, with a save every {EVERY} {np.median(measured[:, 0]):.3f} s: "
            f"saving costs {np.median(costs):.1%} ({costs.min():.1%} to {costs.max():.1%} in {rounds} rounds), "
            f"wanted under {MOST_COST:.0%}"
        )
        restart = measure_restart(corpus, folder)
        print(f"restart to first step: {restart:.1f} s, wanted under {LONGEST_RESTART:.0f} s")


if __name__ == "__main__":
    main()
