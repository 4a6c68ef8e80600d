"""Trains the tiny run on one mesh after another, as one process of several (told by MUFUN_*) or alone.

    python -m tests.sharding.train_meshes CORPUS OUT DEVICES MESH...

DEVICES are simulated in each process; a MESH, such as `data=2,context=2`, is of those of all processes. Its run is in
OUT/MESH, with checkpoints of steps 4 and 6, its last.
"""

import os
import sys
from pathlib import Path

import jax

from mufun_jax.config import RunConfig
from mufun_jax.config_file import load_run_config
from mufun_jax.sharding.mesh import simulate_devices
from mufun_jax.sharding.processes import Processes, joined
from mufun_jax.train.curriculum import train_curriculum

STEPS = 6


def main(corpus: Path, out: Path, devices: int, meshes: list[str]) -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # they take most of the time here
    runs = {mesh: mesh_run(corpus, devices, mesh) for mesh in meshes}
    simulate_devices(runs[meshes[0]].mesh)
    with joined(environment()):
        for mesh, run in runs.items():
            train_curriculum(run, out / mesh)


def mesh_run(corpus: Path, devices: int, mesh: str) -> RunConfig:
    """One stage that leaves windows out, on a mesh.

    Adam's epsilon is large and its steps are small: else a gradient of nearly nothing becomes a step of full size, in a
    direction that rounding decides, and six such steps lead apart.
    """
    sizes = {"data": "1"} | dict(part.split("=") for part in mesh.split(",")) | {"simulated_devices": str(devices)}
    settings = [f"data={corpus}", "curriculum=('long',)", f"stages.long.steps={STEPS}", "optimizer={'epsilon': 0.01}"]
    settings += ["stages.long.learning_rate=0.001", "model.decoder.kv_heads=2"]
    settings += [f"stages.{name}.rows=4" for name in ("warmup", "align", "long")]
    return load_run_config(corpus / "tiny.py", settings + [f"mesh.{axis}={size}" for axis, size in sizes.items()])


def environment() -> Processes:
    if "MUFUN_PROCESS" not in os.environ:
        return Processes()
    coordinator, count, number = (os.environ[f"MUFUN_{name}"] for name in ("COORDINATOR", "PROCESSES", "PROCESS"))
    return Processes(coordinator, int(count), int(number))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
