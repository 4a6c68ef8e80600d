"""Where arrays lie on the mesh while the model runs. Outside a `sharding.rules.sharding_context` there is none.

Names of axes are those of `mufun_jax.axes`; which mesh axes they mean is said in one place, `sharding.rules`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.spmd import logical_to_mesh_axes, with_logical_constraint
from jax.sharding import PartitionSpec

from mufun_jax import axes

SPLIT_IN_USE = (axes.HEADS, axes.KV_HEADS, axes.MLP, axes.VOCAB)  # of a weight, while it is multiplied


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """`x`, split as its axes are called."""
    return with_logical_constraint(x, logical_axes)


def spec_of(*logical_axes: str | None) -> PartitionSpec:
    """The mesh axes of an array."""
    return logical_to_mesh_axes(logical_axes) or PartitionSpec()


def axis_size(mesh_axis: str) -> int:
    """Devices along a mesh axis; 1 without a mesh."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(mesh_axis, 1)


def mesh_size() -> int:
    """Devices of the mesh; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def _devices_along(mesh_axes: str | tuple[str, ...]) -> int:
    return math.prod(map(axis_size, (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes))


def on_each_device(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`function` on each device's part of its arguments, where collectives are written out."""
    if mesh_size() == 1:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def project(
    x: jax.Array,
    weight: jax.Array,
    batch_axes: tuple[str | None, ...],
    weight_axes: tuple[str | None, ...],
    contracted: int,
    split: bool = True,
) -> jax.Array:
    """x times a weight, summed over the last `contracted` axes of x and the first of the weight, in the dtype of x.

    Each device multiplies its part of x: rows and positions, and with `split` heads or feed-forward units, whose sums
    are added up if they are what is summed over. For that the weight is gathered, and the gradient of that is what
    matters: the sums over all rows are scattered as they are formed, each device getting the part it stores. (Left to
    itself the compiler adds whole gradients up on every device and cuts its part out.)
    """
    if mesh_size() == 1:
        return jnp.tensordot(x, weight.astype(x.dtype), axes=contracted)
    kept = tuple(axis if split and axis in SPLIT_IN_USE else None for axis in weight_axes)
    stored, used = spec_of(*weight_axes), spec_of(*kept)

    def local(x, weight):
        weight = weight.astype(x.dtype)
        for dimension, (whole, part) in enumerate(zip(stored, used, strict=True)):
            if whole != part and _devices_along(whole) > 1:
                weight = _gather(weight, whole, dimension)
        y = jnp.tensordot(x, weight, axes=contracted)
        summed = tuple(axis for axis in used[:contracted] if axis is not None)
        return jax.lax.psum(y, summed) if summed else y

    into, out = spec_of(*batch_axes, *kept[:contracted]), spec_of(*batch_axes, *kept[contracted:])
    return jax.shard_map(local, in_specs=(into, stored), out_specs=out)(x, weight)


def _gather(weight: jax.Array, axis: str, dimension: int) -> jax.Array:
    """All devices' parts of a weight along a mesh axis. The gradient is scattered, each sum to the device of its part.

    Over all devices at once the TPU's compiler turns that into adding up everything everywhere. So there it goes in two
    steps: over groups of devices, the further apart, and then within groups of neighbours, on the torus lines or
    planes of it. Together they send as much as one step.
    """
    devices, neighbours = axis_size(axis), _neighbours(axis_size(axis))
    if devices < mesh_size() or neighbours == 1:
        return jax.lax.all_gather(weight, axis, axis=dimension, tiled=True)
    apart = np.arange(devices).reshape(-1, neighbours).T.tolist()
    together = np.arange(devices).reshape(-1, neighbours).tolist()

    @jax.custom_vjp
    def gather(weight):
        return jax.lax.all_gather(weight, axis, axis=dimension, tiled=True)

    def backward(_, gradient):
        for groups in (apart, together):
            gradient = jax.lax.psum_scatter(
                gradient, axis, scatter_dimension=dimension, tiled=True, axis_index_groups=groups
            )
        return (gradient,)

    gather.defvjp(lambda weight: (gather(weight), None), backward)
    return gather(weight)


def _neighbours(devices: int) -> int:
    """How many devices of a slice stand in a line of its torus: of 64, 4 x 4 x 4, 4; of 256, 16 x 16, 16."""
    cube = round(devices ** (1 / 3))
    if cube**3 == devices:
        return cube
    return max(size for size in range(1, int(devices**0.5) + 1) if devices % size == 0)
