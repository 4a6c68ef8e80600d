"""The state of training: parameters, optimizer state and step, born in their shardings."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax.batch import Batch
from mufun_jax.config import ModelConfig
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.rules import tree_shardings

Params = dict[str, Any]  # {"encoder": …, "connector": …, "decoder": …}, plain nested dicts of arrays


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


def abstract_params(config: ModelConfig) -> Any:
    """The parameter tree as shapes in boxes with logical axes; nothing is allocated."""
    model = MuFunModel(config)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), _smallest_batch(config)))["params"]


def param_shardings(config: ModelConfig, mesh: Mesh) -> Params:
    """The sharding of every parameter."""
    return tree_shardings(abstract_params(config), mesh)


def init_params(config: ModelConfig, mesh: Mesh, seed: int) -> Params:
    """Fresh float32 parameters, each shard made where it lives."""
    model = MuFunModel(config)

    def init() -> Params:
        return nn.meta.unbox(model.init(jax.random.key(seed), _smallest_batch(config))["params"])

    return jax.jit(init, out_shardings=param_shardings(config, mesh))()


def start_stage(
    params: Params, optimizer: optax.GradientTransformation, trained_parts: tuple[str, ...], mesh: Mesh
) -> TrainState:
    """Step 0 of a stage: the parameters so far, and optimizer state for the trained parts."""
    trained, _ = split_params(params, trained_parts)
    replicated = NamedSharding(mesh, PartitionSpec())
    shardings = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, trained),
        jax.tree.map(lambda leaf: leaf.sharding, trained),
        transform_non_params=lambda _: replicated,
    )
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(trained)
    return TrainState(jax.device_put(jnp.zeros((), jnp.int32), replicated), params, opt_state)


def count_params(params: Any) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _smallest_batch(config: ModelConfig) -> Batch:
    """One row of one window: enough to build parameters from."""
    length = config.encoder.tokens_per_window + 1
    ints = jnp.zeros((1, length), jnp.int32)
    return Batch(
        tokens=ints,
        audio_slot=ints,
        positions=ints,
        segment_ids=ints,
        samples=jnp.zeros((1, 1, config.encoder.window_samples), jnp.int16),
        window_mask=jnp.ones((1, 1), bool),
        target_index=jnp.zeros((1, 1), jnp.int32),
        targets=jnp.zeros((1, 1), jnp.int32),
        target_weights=jnp.ones((1, 1), jnp.float32),
    )
