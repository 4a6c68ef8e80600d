"""One table from logical axes to mesh axes, and what follows from it for parameters and batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax import axes
from mufun_jax.batch import Batch

RULES: dict[str, tuple[str, ...]] = {
    axes.ROWS: ("data", "fsdp"),
    axes.POSITIONS: ("context",),
    axes.WINDOWS: ("data", "fsdp", "tensor", "context"),  # the encoder leaves no device idle
    axes.TARGETS: ("context",),
    axes.LOOKUP_ROWS: ("data",),
    axes.LOOKUP_WIDTH: ("fsdp",),
    axes.AUDIO_WIDTH: ("context",),
    axes.EMBED: ("fsdp",),
    axes.FEATURES: ("fsdp",),
    axes.VOCAB: ("tensor",),
    axes.MLP: ("tensor",),
    axes.HEADS: ("tensor",),
    axes.KV_HEADS: ("tensor",),
    axes.LAYERS: (),
    axes.HEAD_SIZE: (),
    axes.NORM: (),
    axes.KERNEL: (),
    axes.MEL: (),
    axes.FRAMES: (),
    axes.RANK: (),
}


def partition_spec(logical_axes: tuple[str | None, ...], path: str) -> PartitionSpec:
    """Mesh axes of one array. Raises ValueError for an axis without a rule, or two on one mesh axis."""
    used: dict[str, str] = {}
    spec = []
    for logical in logical_axes:
        if logical is not None and logical not in RULES:
            raise ValueError(f"{path}: logical axis {logical!r} has no rule in sharding/rules.py")
        mesh_axes = RULES[logical] if logical is not None else ()
        for mesh_axis in mesh_axes:
            if mesh_axis in used:
                raise ValueError(f"{path}: {used[mesh_axis]!r} and {logical!r} both lie on mesh axis {mesh_axis!r}")
            used[mesh_axis] = str(logical)
        spec.append(mesh_axes or None)
    return PartitionSpec(*spec)


def tree_shardings(boxed: Any, mesh: Mesh) -> Any:
    """The sharding of each array in a tree of `nn.LogicallyPartitioned` boxes (or of a tree without: an error)."""

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if not isinstance(leaf, nn.LogicallyPartitioned):
            raise ValueError(f"{name}: parameter without logical axes")
        return NamedSharding(mesh, partition_spec(leaf.names, name))

    return jax.tree_util.tree_map_with_path(
        sharding, boxed, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)
    )


def batch_shardings(mesh: Mesh) -> Batch:
    """Rows over data and fsdp, positions over context; windows stay with their rows until they are encoded."""
    by_position = NamedSharding(mesh, partition_spec((axes.ROWS, axes.POSITIONS), "batch"))
    by_row = NamedSharding(mesh, partition_spec((axes.ROWS,), "batch"))
    return Batch(
        tokens=by_position,
        audio_slot=by_position,
        positions=by_position,
        segment_ids=by_position,
        samples=by_row,
        window_mask=by_row,
        target_index=by_row,
        targets=by_row,
        target_weights=by_row,
        target_set=by_row,
    )


@contextmanager
def sharding_context(mesh: Mesh) -> Iterator[None]:
    """Inside, logical constraints in the model mean this mesh under these rules."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(list(RULES.items())):
        yield
