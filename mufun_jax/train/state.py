"""The state of training: parameters, optimizer state and step, born in their shardings."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax.weights.params import Params


@flax.struct.dataclass
class TrainState:
    """What a train step maps to what it becomes. `step` counts within the stage."""

    step: Any  # an int32 scalar (or its sharding, where a state holds shardings)
    params: Params
    opt_state: optax.OptState


def split_params(params: Params, trained: tuple[str, ...]) -> tuple[Params, Params]:
    """Trained and frozen parts of a parameter tree."""
    return (
        {part: tree for part, tree in params.items() if part in trained},
        {part: tree for part, tree in params.items() if part not in trained},
    )


def start_stage(
    params: Params, optimizer: optax.GradientTransformation, trained_parts: tuple[str, ...], mesh: Mesh
) -> TrainState:
    """Step 0 of a stage: the parameters so far, and optimizer state for the trained parts."""
    trained, _ = split_params(params, trained_parts)
    shardings = opt_state_shardings(optimizer, trained, mesh)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(trained)
    replicated = NamedSharding(mesh, PartitionSpec())
    return TrainState(jax.device_put(jnp.zeros((), jnp.int32), replicated), params, opt_state)


def opt_state_shardings(optimizer: optax.GradientTransformation, trained: Params, mesh: Mesh) -> optax.OptState:
    """Each moment lies as its parameter does; counts are everywhere."""
    return optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, trained),
        jax.tree.map(lambda leaf: leaf.sharding, trained),
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )
