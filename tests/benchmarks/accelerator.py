"""A train step on this machine's accelerators: its time, model FLOPs utilisation, memory, and what costs most.

    python -m tests.benchmarks.accelerator --model mufun_0_6b --config configs/mufun_8b.py --stage finetune_long \\
        --set "mesh={'fsdp': 1}" --set stages.finetune_long.rows=1 --set stages.finetune_long.remat=none

Weights are random and rows are packed as training packs them: a song of all windows but one, and an example of the
last. The batch goes to the devices in each step, as in training. MFU is `mufun_jax.model.flops` over
the time of the step and the bfloat16 peak of the devices.
"""

import argparse
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.config_file import load_run_config
from mufun_jax.model.attention import full_attention, packed_attention
from mufun_jax.model.compute import Compute, kernel_for
from mufun_jax.model.flops import train_flops
from mufun_jax.model.presets import preset
from mufun_jax.sharding.chips import GIB, PEAKS, peak_flops
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.sharding.rules import sharding_context
from mufun_jax.train.state import precise_and_in_use, split_params, start_stage
from mufun_jax.train.step import compile_train_step, make_train_step
from mufun_jax.weights.params import count_params, init_params
from tests.benchmarks.step_batch import make_batch

WARMUP, PROFILED = 3, 2  # steps
COSTS = 5
AGREEMENT = 1e-2  # relative, of attention in bfloat16 with attention in float32


def peak_of(device: Any) -> float:
    """FLOPs a second. Raises SystemExit for a device that is not in the table."""
    peak = peak_flops(device.device_kind)
    if peak is not None:
        return peak
    raise SystemExit(f"the peak of {device.device_kind!r} is not in PEAKS; there are {', '.join(PEAKS)}")


def row_of(stage: StageConfig) -> list[int]:
    """Windows of the examples of a row: all but one in a song, and a short example."""
    return [stage.windows - 1, 1]


def check_attention(run: RunConfig, console: Console) -> None:
    """This platform's kernel against plain float32 products: output and gradients, packed and over whole windows."""
    encoder, decoder = run.model.encoder, run.model.decoder
    compute = Compute(jnp.bfloat16, kernel=kernel_for(jax.devices()[0].platform))
    segments = jnp.asarray([[1] * 300 + [2] * 500 + [3] * 160 + [0] * 64])
    cases = {
        "packed": (
            (1, 1024, decoder.heads, decoder.kv_heads, decoder.head_size),
            lambda q, k, v, how: packed_attention(q, k, v, segments, how),
        ),
        "windows": ((2, encoder.frames, encoder.heads, encoder.heads, encoder.width // encoder.heads), full_attention),
    }
    for name, ((batch, length, heads, kv_heads, size), attend) in cases.items():
        keys = jax.random.split(jax.random.key(0), 4)
        shapes = ((batch, length, n, size) for n in (heads, kv_heads, kv_heads, heads))
        q, k, v, weight = (jax.random.normal(key, shape, jnp.bfloat16) for key, shape in zip(keys, shapes, strict=True))

        def weighted(q, k, v, how, attend=attend, weight=weight):
            return (attend(q, k, v, how).astype(jnp.float32) * weight.astype(jnp.float32)).sum()

        def all_of(q, k, v, how, attend=attend, weighted=weighted):
            return attend(q, k, v, how), *jax.grad(weighted, (0, 1, 2))(q, k, v, how)

        ours = jax.jit(all_of, static_argnums=3)(q, k, v, compute)
        with jax.default_matmul_precision("highest"):
            exact = jax.jit(all_of, static_argnums=3)(*(x.astype(jnp.float32) for x in (q, k, v)), Compute())
        errors = [
            float(jnp.linalg.norm((x - y).ravel()) / jnp.linalg.norm(y.ravel()))
            for x, y in zip((x.astype(jnp.float32) for x in ours), exact, strict=True)
        ]
        console.print(f"{compute.kernel} attention, {name}: out, dq, dk, dv off by {errors}")
        assert max(errors) < AGREEMENT, f"more than {AGREEMENT}, relative"


class Steps:
    """The step of a stage over one batch, from fresh weights."""

    def __init__(self, run: RunConfig, stage: StageConfig) -> None:
        self.mesh = make_mesh(run.mesh)
        self.batch = make_batch(run.model, stage, [row_of(stage)] * stage.rows, 0)
        params = init_params(run.model, self.mesh, 0)
        self.parameters = count_params(params)
        _, frozen = split_params(params, stage.trained_parts)
        _, self.frozen = precise_and_in_use(frozen, run.compute_dtype)
        self.state = start_stage(run, stage, params, self.mesh, 0)
        del params, frozen
        self.learning_rate = np.float32(stage.learning_rate)
        platform = self.mesh.devices.flat[0].platform
        with sharding_context(self.mesh):
            step = compile_train_step(make_train_step(run, stage, platform), self.state, self.frozen, self.mesh)
            began = time.perf_counter()
            self.compiled = step.lower(self.state, self.frozen, self.put(), self.learning_rate).compile()
        self.compile_seconds = time.perf_counter() - began

    def put(self):
        return LocalRows(self.mesh, len(self.batch.tokens)).to_device(self.batch)

    def take(self, count: int) -> tuple[float, float]:
        """Seconds of one of `count` steps, and the last loss."""
        began = time.perf_counter()
        metrics = {"loss": np.float32(0)}
        for _ in range(count):
            self.state, metrics = self.compiled(self.state, self.frozen, self.put(), self.learning_rate)
        loss = float(metrics["loss"])
        return (time.perf_counter() - began) / count, loss


def places_of(program: str | None) -> dict[str, str]:
    """What each instruction of a program was made from: module and operation, forward or backward."""
    found = {}
    for name, source in re.findall(r'%?([\w.\-]+) = .*?op_name="([^"]*)"', program or ""):
        backward = "transpose(" in source
        again = "rematted_computation" in source
        parts = [part for part in re.split(r"[/()]", source) if part]
        kept = [
            part
            for part in parts
            if not re.match(
                r"jit|jvp|transpose|while|body|cond|closed_call|checkpoint|remat|MuFunModel|layers$|_\w+$", part
            )
        ]
        pass_name = "again" if again else "backward" if backward else "forward"
        found[name] = f"{'/'.join(kept[-3:])} {pass_name}"
    return found


def kernel_seconds(steps: Steps) -> Iterator[tuple[str, float]]:
    """Kernels of a few steps as the profiler sees them on the first device: name of the instruction, seconds."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            steps.take(PROFILED)
        for file in Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                if not re.search(r"/device:(GPU|TPU):0", plane.name):
                    continue
                for line in plane.lines:
                    if line.name.startswith("Stream") or line.name == "XLA Ops":
                        for event in line.events:
                            stats = dict(event.stats)
                            yield str(stats.get("hlo_op", event.name)), event.duration_ns / 1e9 / PROFILED


def print_costs(console: Console, steps: Steps) -> None:
    """The largest shares of a step, by where in the model they come from."""
    places = places_of(steps.compiled.as_text())
    by_place, by_kernel = Counter[str](), Counter[str]()
    for name, seconds in kernel_seconds(steps):
        by_kernel[name] += seconds  # pyright: ignore[reportArgumentType]
        by_place[places.get(name, name)] += seconds  # pyright: ignore[reportArgumentType]
    total = sum(by_place.values())
    for title, costs, count in (("place", by_place, 4 * COSTS), ("instruction", by_kernel, 2 * COSTS)):
        console.print(f"by {title}: {1e3 * total:.1f} ms of kernels in a step")
        for name, seconds in costs.most_common(count):
            console.print(f"  {1e3 * seconds:8.2f} ms  {seconds / total:5.1%}  {name}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/mufun_8b.py"))
    parser.add_argument("--model", help="a preset, instead of the config's")
    parser.add_argument("--stage", default="finetune_long")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args(arguments)
    run = load_run_config(given.config, [f"curriculum=({given.stage!r},)", *given.settings])
    run = replace(run, model=preset(given.model)) if given.model else run
    stage = run.stages[given.stage]
    console = Console(width=140, highlight=False, markup=False)
    check_attention(run, console)
    steps = Steps(run, stage)
    _, first = steps.take(1)
    steps.take(WARMUP)
    seconds, last = min(steps.take(given.steps) for _ in range(2))
    flops = train_flops(run.model, stage)
    devices = steps.mesh.devices.flat
    peak = sum(map(peak_of, devices))
    memory = steps.compiled.memory_analysis()
    assert memory is not None
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    rate = flops.total / seconds
    for line in (
        f"{given.model or given.config} {given.stage}: {stage.rows} rows of {stage.positions} positions and "
        f"{stage.windows} windows, remat {stage.remat}, {run.compute_dtype}, {len(devices)} x {devices[0].device_kind}",
        f"{1e3 * seconds:.1f} ms a step, {rate / 1e12:.0f} TFLOP/s, MFU {rate / peak:.1%}",
        f"{flops.total:.3g} FLOPs of the model, {flops.encoder / flops.total:.0%} of them the encoder's; "
        f"{steps.parameters / 1e9:.2f} B parameters; {needed / GIB:.1f} GiB",
        f"compiled in {steps.compile_seconds:.0f} s; loss {first:.3f} at first, {last:.3f} at last",
    ):
        console.print(line)
    if given.profile:
        print_costs(console, steps)


if __name__ == "__main__":
    main()
