"""int8 weights: each matrix of the decoder as int8 with one float32 scale an output channel, by qwix.

Only weights are quantised; products are computed in the model's dtype. Quantised are the projections of all decoder
layers and an untied head: what every token multiplies. The embedding, of which a token reads one row, stays.
"""

from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

# Leaves of the decoder that are matrices, with how many of the kernel's axes are summed over.
_CONTRACTED = {"query": 1, "key": 1, "value": 1, "out": 2, "gate": 1, "up": 1, "down": 1, "head": 1}


def contracted_axes(leaf: tuple[str, ...]) -> tuple[int, ...] | None:
    """Which axes of a leaf are summed over, if the leaf is one that is quantised. Layers are stacked on axis 0."""
    part, *path, last = leaf
    if part != "decoder" or last != "kernel":
        return None
    first = 1 if path[0] == "layers" else 0
    return tuple(range(first, first + _CONTRACTED[path[-1]]))


def quantized_bytes(shapes: Any, dtype: str) -> int:
    """Bytes of a model with int8 matrices and all else in `dtype`, from the shapes of its parameters."""
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        contracted = contracted_axes(tuple(key.key for key in path))
        if contracted is None:
            total += leaf.size * jnp.dtype(dtype).itemsize
        else:
            scales = leaf.size // prod(leaf.shape[axis] for axis in contracted)
            total += leaf.size + scales * jnp.dtype(jnp.float32).itemsize
    return total


def quantize_kernel(kernel: jax.Array, contracted: tuple[int, ...]) -> Any:
    """A `qwix.QArray`: the kernel in steps of largest / 127.5 for each output channel, and those steps.

    `kernel` is deleted.
    """
    import qwix  # here, for it takes long, and most models need none of it

    sharding = kernel.sharding
    assert isinstance(sharding, NamedSharding)
    spec = [*sharding.spec, *[None] * (kernel.ndim - len(sharding.spec))]
    scale_spec = PartitionSpec(*(None if axis in contracted else names for axis, names in enumerate(spec)))
    shardings = qwix.QArray(sharding, NamedSharding(sharding.mesh, scale_spec), qtype=jnp.int8)  # pyright: ignore[reportArgumentType]
    kept = tuple(axis for axis in range(kernel.ndim) if axis not in contracted)

    @partial(jax.jit, out_shardings=shardings)
    def quantize(kernel: jax.Array) -> Any:
        # In float32, for a scale that is not rounded; the wider kernel is never whole in memory.
        return qwix.quantize(kernel.astype(jnp.float32), jnp.int8, channelwise_axes=kept)

    quantized = jax.block_until_ready(quantize(kernel))
    kernel.delete()
    return quantized
