"""The parameter tree of a model: its shapes and shardings, and fresh values."""

import functools
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from mufun_jax.batch import Batch
from mufun_jax.config import ModelConfig
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.rules import tree_shardings

Params = dict[str, Any]  # {"encoder": …, "connector": …, "decoder": …}, plain nested dicts of arrays


@functools.cache
def abstract_params(config: ModelConfig) -> Any:
    """The parameter tree as shapes in boxes with logical axes; nothing is allocated. Shared: not to be changed."""
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


def layers_apart(params: Params, device: Any) -> Params:
    """The same parameters, on a CPU's device, for `Compute.scan_layers` False: decoder layer i's are "layers" "i".

    They are views of those given: nothing is copied but what does not lie on a border of 64 bytes.
    """

    def of_layer(number: int, leaf: jax.Array | np.ndarray) -> jax.Array:
        return jax.device_put(np.asarray(leaf)[number], device, may_alias=True)

    stacked = params["decoder"]["layers"]
    (layers,) = {len(leaf) for leaf in jax.tree.leaves(stacked)}
    layer_params = {str(number): jax.tree.map(partial(of_layer, number), stacked) for number in range(layers)}
    return params | {"decoder": params["decoder"] | {"layers": layer_params}}


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
        target_set=jnp.zeros((1, 1), jnp.int32),
    )
