"""A tensor where it lies in a file: contiguous, little-endian, row after row. It is read in blocks, never mapped."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mufun_jax.errors import CheckpointError

MOST_AXES = 8  # of any tensor; more is damage
LARGEST_AXIS = 2**62
BLOCK = 16 * 1024**2  # bytes read at a time
DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


@dataclass(frozen=True)
class StoredTensor:
    """`shape` values of `dtype` at byte `offset` of a file."""

    name: str
    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def _row_bytes(self) -> int:
        return prod(self.shape[1:]) * self.dtype.itemsize

    def rows(self, first: int, end: int) -> "StoredTensor":
        """Rows `first` up to `end` of the leading axis."""
        assert 0 <= first <= end <= self.shape[0], (self.name, self.shape, first, end)
        return replace(self, offset=self.offset + first * self._row_bytes, shape=(end - first, *self.shape[1:]))

    def viewed(self, shape: tuple[int, ...]) -> "StoredTensor":
        """The same values, in the same order, as another shape."""
        assert prod(shape) == prod(self.shape), (self.name, self.shape, shape)
        return replace(self, shape=shape)

    def read(self) -> np.ndarray:
        """The whole tensor. Raises CheckpointError where the file cannot be read or ends before it does."""
        values = np.empty(self.shape, self.dtype)
        self._fill(values)
        return values

    def row_blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """Blocks of whole rows, about BLOCK bytes each, with the number of their first row."""
        step = max(1, BLOCK // max(1, self._row_bytes))
        for first in range(0, self.shape[0], step):
            yield first, self.rows(first, min(first + step, self.shape[0])).read()

    def flat_blocks(self) -> Iterator[np.ndarray]:
        """All values in order, one-dimensional, about BLOCK bytes at a time."""
        for _, block in self.viewed((prod(self.shape),)).row_blocks():
            yield block

    def _fill(self, values: np.ndarray) -> None:
        buffer = values.reshape(-1).view(np.uint8).data
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(self.offset)
                done = 0
                while done < len(buffer):
                    count = file.readinto(buffer[done:])
                    if not count:
                        raise CheckpointError(f"{self.path}: ends inside the tensor {self.name}; fetch the file again")
                    done += count
        except OSError as error:
            raise CheckpointError(f"{self.path}: {self.name} cannot be read: {error.strerror}") from None
