"""Low-rank adapters: a trained A B beside each frozen projection W, Hu et al. 2021, arXiv 2106.09685.

Adapters are a tree of their own, {part: {…: {projection: {a, b}}}}, which the model takes as the collection `lora`.
At the end of a stage they are merged into the weights: what is saved, exported and trained on has none.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import LogicallyPartitioned, meta
from jax.sharding import Mesh

from mufun_jax import axes
from mufun_jax.config import LoraConfig, ModelConfig
from mufun_jax.errors import ConfigError, nearest
from mufun_jax.sharding.rules import tree_shardings
from mufun_jax.weights.params import Params, abstract_params

Adapters = dict[str, Any]
_INPUT_AXES = {"out": 2}  # axes of a kernel, behind that of the layers, that are summed over where they are not one


def abstract_adapters(model: ModelConfig, config: LoraConfig, parts: tuple[str, ...]) -> Adapters:
    """Adapters of `parts` as shapes in boxes with logical axes.

    Raises:
        ConfigError: no projection in these parts has the name of one of `config.targets`.
    """
    names: set[str] = set()

    def factors(name: str, kernel: LogicallyPartitioned) -> Adapters | None:
        names.add(name)
        if name not in config.targets:
            return None
        layers, inputs, outputs = _split_axes(name, kernel.names)
        before, within, after = _split_axes(name, kernel.value.shape)
        return {
            "a": _box((*layers, *inputs, axes.RANK), (*before, *within, config.rank)),
            "b": _box((*layers, axes.RANK, *outputs), (*before, config.rank, *after)),
        }

    whole = abstract_params(model)
    adapters = {part: _map_projections(factors, whole[part]) for part in parts}
    for target in config.targets:
        if target not in names:
            known = ", ".join(sorted(names))
            raise ConfigError(f"lora.targets: no projection {target!r}{nearest(target, sorted(names))}; known: {known}")
    return adapters


def init_adapters(model: ModelConfig, config: LoraConfig, parts: tuple[str, ...], mesh: Mesh, seed: int) -> Adapters:
    """Fresh float32 adapters, born sharded: A normal with variance 1 / fan-in, B zero, so that A B is zero."""
    abstract = abstract_adapters(model, config, parts)

    def init() -> Adapters:
        leaves, structure = jax.tree_util.tree_flatten_with_path(meta.unbox(abstract))
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        values = []
        for key, (path, leaf) in zip(keys, leaves, strict=True):
            fan_in = prod(leaf.shape[1:-1])
            fresh = jax.random.normal(key, leaf.shape) / fan_in**0.5 if path[-1].key == "a" else jnp.zeros(leaf.shape)
            values.append(fresh)
        return jax.tree.unflatten(structure, values)

    return jax.jit(init, out_shardings=tree_shardings(abstract, mesh))()


def scaled(adapters: Adapters, config: LoraConfig) -> Adapters:
    """Adapters as the model takes them: B times alpha / rank."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * (config.alpha / config.rank) if path[-1].key == "b" else leaf, adapters
    )


def merge(params: Params, adapters: Adapters, config: LoraConfig) -> Params:
    """W + alpha / rank x A B wherever there are adapters, in the dtype and sharding of W."""
    return {
        part: _merge(tree, scaled(adapters[part], config)) if part in adapters else tree
        for part, tree in params.items()
    }


def _merge(params: Params, adapters: Adapters) -> Params:
    merged = dict(params)
    for name, below in adapters.items():
        if "a" in below:
            merged[name] = {**params[name], "kernel": _merged_kernel(params[name]["kernel"], below["a"], below["b"])}
        else:
            merged[name] = _merge(params[name], below)
    return merged


def _merged_kernel(kernel: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    def add(kernel, a, b):
        product = jax.vmap(lambda a, b: jnp.tensordot(a, b, axes=1, precision="highest"))(a, b)
        return (kernel.astype(jnp.float32) + product).astype(kernel.dtype)

    return jax.jit(add, out_shardings=kernel.sharding)(kernel, a, b)


def _map_projections(function: Callable[[str, Any], Adapters | None], tree: Params) -> Adapters:
    """`function` of each projection's name and kernel in a part's layers, where it gives something."""
    mapped = {}
    for name, below in tree.items():
        if not isinstance(below, dict):
            continue
        kernel = below.get("kernel")
        found = _map_projections(function, below) if kernel is None else None
        if kernel is not None and axes.LAYERS in kernel.names:
            found = function(name, kernel)
        if found:
            mapped[name] = found
    return mapped


def _split_axes(name: str, of_axes: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Of something for each axis of a kernel: that of the layers, those summed over, the rest."""
    first = 1 + _INPUT_AXES.get(name, 1)
    return of_axes[:1], of_axes[1:first], of_axes[first:]


def _box(names: tuple[str, ...], shape: tuple[int, ...]) -> LogicallyPartitioned:
    return LogicallyPartitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)
