"""Which rows of a batch this process reads, and how they become its part of the global batch.

With four processes of one device each and a mesh of data 2 x context 2, processes 0 and 1 hold the two halves of the
positions of the first rows, 2 and 3 those of the last: each reads one half of the rows, and keeps half of each.

    rows of the batch   0  1 | 2  3
    processes           0, 1 | 2, 3
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from mufun_jax import axes
from mufun_jax.batch import Batch
from mufun_jax.sharding.rules import batch_shardings, partition_spec


@dataclass(frozen=True)
class LocalRows:
    """The rows, of `total` in a global batch, that devices of this process hold, whole or in part."""

    mesh: Mesh
    total: int

    @cached_property
    def numbers(self) -> tuple[int, ...]:
        """Their numbers in the global batch, rising. Processes that share rows over `tensor` or `context` share them
        here; devices may lie in the mesh in any order."""
        by_row = NamedSharding(self.mesh, partition_spec((axes.ROWS,), "batch"))
        parts = by_row.addressable_devices_indices_map((self.total,)).values()
        return tuple(sorted({row for index in parts if index is not None for row in range(self.total)[index[0]]}))

    def to_device(self, batch: Batch) -> Batch:
        """The rows of `numbers` as this process's part of the global batch: each device gets its rows, and of them its
        positions."""
        return jax.tree.map(self._put, batch_shardings(self.mesh), batch)

    def _put(self, sharding: NamedSharding, rows: np.ndarray) -> jax.Array:
        assert len(rows) == len(self.numbers), (len(rows), self.numbers)
        return jax.make_array_from_callback((self.total, *rows.shape[1:]), sharding, self._part_of(rows))

    def _part_of(self, rows: np.ndarray) -> Callable[[Any], np.ndarray]:
        """A function from a device's index into the global array to its part. The rows of a device have no gaps, and
        so have none in `numbers` either."""

        def part(index: tuple[slice, ...]) -> np.ndarray:
            wanted = range(self.total)[index[0]]
            first = self.numbers.index(wanted[0])
            return rows[(slice(first, first + len(wanted)), *index[1:])]

        return part
