"""One of two processes with two devices each: places the rows of a batch under many meshes; then process 1 fails."""

import itertools

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

from mufun_jax.axes import MESH_AXES
from mufun_jax.batch import Batch
from mufun_jax.config import MeshConfig
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.sharding.mesh import simulate_devices
from mufun_jax.sharding.processes import joined
from tests.sharding.train_meshes import environment

ROWS, POSITIONS = 8, 16
SHAPES = [shape for shape in itertools.product((1, 2, 4), repeat=4) if np.prod(shape) == 4]
ORDERS = [(0, 1, 2, 3), (0, 2, 1, 3), (3, 0, 2, 1)]  # of the devices in the mesh; as a torus may have them


def whole_batch() -> Batch:
    by_position = np.arange(ROWS * POSITIONS, dtype=np.int32).reshape(ROWS, POSITIONS)
    by_row = by_position[:, :3]
    samples = np.arange(ROWS * 3 * 5, dtype=np.int16).reshape(ROWS, 3, 5)
    return Batch(
        by_position,
        by_position,
        by_position,
        by_position,
        samples,
        by_row > 0,
        by_row,
        by_row,
        by_row.astype("f"),
        by_row,
    )


def main() -> None:
    simulate_devices(MeshConfig(simulated_devices=2))
    with joined(environment()):
        batch, read = whole_batch(), set()
        for shape, order in itertools.product(SHAPES, ORDERS):
            devices = np.array(jax.devices())[list(order)].reshape(shape)
            mesh = Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 4)
            rows = LocalRows(mesh, ROWS)
            mine = jax.tree.map(lambda field, rows=rows: field[list(rows.numbers)], batch)
            for placed, field in zip(jax.tree.leaves(rows.to_device(mine)), jax.tree.leaves(batch), strict=True):
                assert placed.shape == field.shape
                for shard in placed.addressable_shards:
                    np.testing.assert_array_equal(np.asarray(shard.data), field[shard.index])
            read.add(rows.numbers)
        print(f"process {jax.process_index()} of {jax.process_count()} read {sorted(read)}", flush=True)
        multihost_utils.sync_global_devices("placed")
        if jax.process_index() == 1:
            raise RuntimeError("this process is broken")
        multihost_utils.sync_global_devices("a barrier that process 1 never reaches")


if __name__ == "__main__":
    main()
