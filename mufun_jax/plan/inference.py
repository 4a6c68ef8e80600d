"""Prefill and one step of decoding for devices that need not be there: weights, prompts and cache as shapes."""

from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import qwix
from flax.linen import meta
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from mufun_jax.config import ModelConfig
from mufun_jax.errors import ConfigError
from mufun_jax.generate.decode import Prompts, prefill
from mufun_jax.model.compute import Compute
from mufun_jax.model.kv_cache import KVCache
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.weights.params import Params, abstract_params, param_shardings
from mufun_jax.weights.quantize import contracted_axes

Weights = Literal["bfloat16", "int8"]
_ROW_AXES = ("data", "fsdp")
_DTYPE = jnp.bfloat16  # what inference computes in, and what its weights are where they are not int8


def lower_prefill(
    model: ModelConfig, rows: int, windows: int, positions: int, weights: Weights, mesh: Mesh
) -> jax.stages.Lowered:
    """The program that runs prompts of so many positions and windows into a fresh cache."""
    of_prompts = (
        _shape((rows, positions), jnp.int32, mesh, _rows(rows, mesh)),
        _shape((rows, positions), jnp.int32, mesh, _rows(rows, mesh)),
        _shape((rows,), jnp.int32, mesh, _rows(rows, mesh)),
        _shape((rows, windows, model.encoder.window_samples), jnp.float32, mesh, _rows(rows, mesh)),
    )

    @jax.jit
    def run(params: Params, of_prompts: Any) -> Any:
        return prefill(MuFunModel(model, Compute(_DTYPE)), params, Prompts(*of_prompts), positions)

    with jax.set_mesh(mesh):
        return run.lower(served_params(model, weights, mesh), of_prompts)


def lower_decode(model: ModelConfig, rows: int, slots: int, weights: Weights, mesh: Mesh) -> jax.stages.Lowered:
    """One turn of the loop in `generate`: the likeliest next token of each row, at the end of a cache of `slots`."""
    token = _shape((rows, 1), jnp.int32, mesh, _rows(rows, mesh))
    last = _shape((rows,), jnp.int32, mesh, _rows(rows, mesh))
    with jax.set_mesh(mesh):
        step = jax.jit(partial(_decode_step, MuFunModel(model, Compute(_DTYPE))), donate_argnums=1)
        return step.lower(served_params(model, weights, mesh), abstract_cache(model, rows, slots, mesh), token, last)


def _decode_step(
    model: MuFunModel, params: Params, cache: KVCache, token: Int[Array, "R 1"], position: Int[Array, " R"]
) -> tuple[Any, Any]:
    logits, longer = model.apply({"params": params}, token, position, cache, method=MuFunModel.append)
    return jnp.argmax(logits[:, 0], -1)[:, None], longer  # pyright: ignore[reportIndexIssue,reportCallIssue,reportArgumentType]


def served_params(model: ModelConfig, weights: Weights, mesh: Mesh) -> Params:
    """Parameters as inference holds them: bfloat16, or the decoder's matrices as int8 with one scale a channel."""

    def served(path: Any, leaf: Any, sharding: NamedSharding) -> Any:
        contracted = contracted_axes(tuple(key.key for key in path)) if weights == "int8" else None
        if contracted is None:
            return jax.ShapeDtypeStruct(leaf.shape, _DTYPE, sharding=sharding)
        kept = [1 if axis in contracted else size for axis, size in enumerate(leaf.shape)]
        spec = [*sharding.spec, *[None] * (leaf.ndim - len(sharding.spec))]
        scale_spec = PartitionSpec(*(None if axis in contracted else names for axis, names in enumerate(spec)))
        return qwix.QArray(
            jax.ShapeDtypeStruct(leaf.shape, jnp.int8, sharding=sharding),  # pyright: ignore[reportArgumentType]
            jax.ShapeDtypeStruct(tuple(kept), jnp.float32, sharding=NamedSharding(sharding.mesh, scale_spec)),  # pyright: ignore[reportArgumentType]
            qtype=jnp.int8,
        )

    shapes = meta.unbox(abstract_params(model))
    return jax.tree_util.tree_map_with_path(served, shapes, param_shardings(model, mesh))


def abstract_cache(model: ModelConfig, rows: int, slots: int, mesh: Mesh) -> KVCache:
    """A key/value cache: rows over data and fsdp, heads over tensor, where they divide."""
    decoder = model.decoder
    heads = "tensor" if decoder.kv_heads % mesh.shape["tensor"] == 0 else None
    shape = (decoder.layers, rows, decoder.kv_heads, slots, decoder.head_size)
    one = _shape(shape, _DTYPE, mesh, (None, *_rows(rows, mesh), heads))
    return KVCache(one, one)  # pyright: ignore[reportArgumentType]


def check_rows(rows: int, mesh: dict[str, int]) -> None:
    """Raises ConfigError for rows that neither divide over the mesh nor are all on every device."""
    devices = prod(mesh[axis] for axis in _ROW_AXES)
    if rows > 1 and rows % devices:
        raise ConfigError(
            f"--rows {rows} does not divide over data x fsdp = {devices}; give {-(-rows // devices) * devices}"
        )


def _rows(rows: int, mesh: Mesh) -> tuple[tuple[str, ...] | None]:
    return (_ROW_AXES if rows % prod(mesh.shape[axis] for axis in _ROW_AXES) == 0 else None,)


def _shape(shape: tuple[int, ...], dtype: Any, mesh: Mesh, spec: tuple[Any, ...]) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
