"""A train step of the nano model beside the same step in PyTorch: same weights, batch, optimizer and threads.

    make bench                                  (or python -m tests.benchmarks.train --rounds 7)

From int16 windows to new weights, log-mel included (PyTorch's by torch.stft). Both take turns, a few steps each.
Losses and gradient norms must agree to 1e-4 before anything is timed. Wanted: 1.5 times PyTorch's speed.
"""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

THREADS = 2
# Before either starts: the threads of JAX's CPU device; and PyTorch's sleep while they wait for each other. They spin
# otherwise, and on a machine with other work to do that alone makes its steps five times as long.
os.environ |= {"PJRT_NPROC": str(THREADS), "JAX_PLATFORMS": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from mufun_jax.batch import Batch  # noqa: E402
from mufun_jax.config import RunConfig, StageConfig  # noqa: E402
from mufun_jax.config_file import load_run_config  # noqa: E402
from mufun_jax.sharding.local_rows import LocalRows  # noqa: E402
from mufun_jax.sharding.mesh import make_mesh  # noqa: E402
from mufun_jax.sharding.rules import sharding_context, tree_shardings  # noqa: E402
from mufun_jax.train.state import start_stage  # noqa: E402
from mufun_jax.train.step import compile_train_step, make_train_step  # noqa: E402
from mufun_jax.weights.params import abstract_params  # noqa: E402
from tests.benchmarks.step_batch import make_batch  # noqa: E402
from tests.benchmarks.torch_step import TorchStep  # noqa: E402
from tests.parity.reference_model import ReferenceModel, params_of  # noqa: E402

CONFIG = Path(__file__).parents[2] / "configs" / "nano.py"
# Of each row of a stage, the windows of its examples: about what its mixture packs (80 to 95 % of all positions used).
ROWS = {
    "finetune_short": 4 * [(1, 1, 1, 1)] + 2 * [(4,)],
    "finetune_long": [(10, 1, 1, 1, 1), (4, 4, 4, 1, 1)],
}
AGREEMENT = 1e-4
LEAST_RATIO = 1.5

Step = Callable[[Batch, float], tuple[float, float]]  # to loss and gradient norm
Seconds = list[tuple[float, float]]  # that passed, and of the cores' work, for one step, in each round


def our_step(run: RunConfig, stage: StageConfig, reference: ReferenceModel) -> Step:
    """The step that `mufun train` takes, batch put on the device, from the reference's weights."""
    mesh = make_mesh(run.mesh)
    params = jax.device_put(params_of(reference), tree_shardings(abstract_params(run.model), mesh))
    state = start_stage(run, stage, params, mesh, 0)
    with sharding_context(mesh):
        compiled = compile_train_step(make_train_step(run, stage, "cpu"), state, {}, mesh)

    def take(batch: Batch, learning_rate: float) -> tuple[float, float]:
        nonlocal state
        with sharding_context(mesh):
            state, metrics = compiled(state, {}, LocalRows(mesh, len(batch.tokens)).to_device(batch), learning_rate)
        return float(metrics["loss"]), float(metrics["gradient_norm"])

    return take


def torch_step(run: RunConfig, reference: ReferenceModel) -> Step:
    step = TorchStep(reference, run.optimizer)

    def take(batch: Batch, learning_rate: float) -> tuple[float, float]:
        loss, norm = step(batch, learning_rate)
        return float(loss), float(norm)

    return take


def check_agreement(found: dict[str, tuple[float, float]]) -> None:
    """Loss and gradient norm of the first step, from the same weights."""
    (_, ours), *others = found.items()
    for name, theirs in others:
        for what, our_value, their_value in zip(("loss", "gradient norm"), ours, theirs, strict=True):
            if not abs(our_value - their_value) < AGREEMENT * abs(their_value):
                sys.exit(f"{what}: ours {our_value:.7g}, {name} {their_value:.7g}, wanted within {AGREEMENT:g}")


def measure(
    steps: dict[str, Step], batches: Sequence[Batch], learning_rate: float, rounds: int, count: int
) -> dict[str, Seconds]:
    """Of a step, in each round. All take turns of `count` steps, in one order and then in the other."""
    seconds: dict[str, Seconds] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            wall, cores = time.perf_counter(), time.process_time()
            for turn in range(count):
                steps[name](batches[turn % len(batches)], learning_rate)
            wall, cores = time.perf_counter() - wall, time.process_time() - cores
            if number:  # the first round warms up
                seconds[name].append((wall / count, cores / count))
    return seconds


def rows_of(stage: str, seconds: dict[str, Seconds]) -> Iterator[tuple[tuple[str, ...], float]]:
    """A row of the table for each that was measured, and by how much ours is faster. Ratios are of pairs in a round."""
    ours = np.array(seconds["ours"])
    for name, measured in seconds.items():
        theirs = np.array(measured)
        wall, cores = np.median(theirs, axis=0)
        ratios = theirs / ours
        ratio, core_ratio = np.median(ratios, axis=0)
        between = f"{ratios[:, 0].min():.2f} to {ratios[:, 0].max():.2f}"
        cells = (stage, name, f"{wall:.3f} s", f"{cores:.3f} s", f"{ratio:.2f}", between, f"{core_ratio:.2f}")
        yield cells, float(ratio)


def compare(run: RunConfig, name: str, arguments: argparse.Namespace) -> dict[str, Seconds]:
    """One stage: agreement first, then speed."""
    stage = run.stages[name]
    batches = [make_batch(run.model, stage, ROWS[name], seed) for seed in range(2)]
    steps = {"ours": our_step(run, stage, ReferenceModel(run.model))}
    steps["PyTorch"] = torch_step(run, ReferenceModel(run.model))
    check_agreement({kind: step(batches[0], stage.learning_rate) for kind, step in steps.items()})
    return measure(steps, batches, stage.learning_rate, arguments.rounds, arguments.steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of each in a round")
    arguments = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())
    torch.set_num_threads(THREADS)
    run = load_run_config(CONFIG, ["mesh.data=1", "mesh.simulated_devices=0"])
    rows = [row for name in ROWS for row in rows_of(name, compare(run, name, arguments))]
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    title = (
        f"A train step of the nano model, float32, one device, {THREADS} threads: medians of {arguments.rounds} rounds "
        f"of {arguments.steps} steps (load {load})"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("stage", "", "a step", "of the cores", "of ours", "in the rounds", "of ours, by cores")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number > 1 else "left")
    for cells, _ in rows:
        table.add_row(*cells)
    Console(width=120).print(table)
    missed = [
        f"{stage}: {ratio:.2f} times the speed of {name}, wanted {LEAST_RATIO}"
        for (stage, name, *_), ratio in rows
        if name != "ours" and ratio < LEAST_RATIO
    ]
    print("\n".join(missed))


if __name__ == "__main__":
    main()
