"""Prefill and decoding for devices that need not be there: weights, prompts and cache as shapes."""

from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import qwix
from flax.linen import meta
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax.config import ModelConfig
from mufun_jax.errors import ConfigError
from mufun_jax.generate.decode import Decoding, Prompts, advance, prefill
from mufun_jax.generate.sample import Sampling
from mufun_jax.model.compute import Compute
from mufun_jax.model.kv_cache import KVCache, Prefix
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.weights.params import Params, abstract_params, param_shardings
from mufun_jax.weights.quantize import contracted_axes

Weights = Literal["bfloat16", "int8"]
_ROW_AXES = ("data", "fsdp")
_OWN_SLOTS = 128  # of a row: a question, and an answer as long
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
    """The loop that draws tokens, the likeliest of each row, over a cache of `slots` in all: each row has a song of its
    own as its prefix, and for question and answer the last slots."""
    prefix, decoding = abstract_cache(model, rows, slots, mesh)
    scalar = _shape((), jnp.int32, mesh, ())
    with jax.set_mesh(mesh):
        return advance.lower(
            MuFunModel(model, Compute(_DTYPE)),
            served_params(model, weights, mesh),
            prefix,
            decoding,
            Sampling().kind,
            _shape((4,), jnp.float32, mesh, ()),
            scalar,
            scalar,
        )


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


def abstract_cache(model: ModelConfig, rows: int, slots: int, mesh: Mesh) -> tuple[Prefix, Decoding]:
    """Prefixes, one a row, and answers that have been begun: rows over data and fsdp, heads over tensor, where they
    divide."""
    own = min(_OWN_SLOTS, slots // 2)
    by_row = _rows(rows, mesh)

    def of_rows(dtype: Any, *sizes: int) -> Any:
        return _shape((rows, *sizes), dtype, mesh, by_row)

    decoding = Decoding(
        logits=of_rows(jnp.float32, model.decoder.vocab_size),
        cache=_abstract_cache(model, rows, own, mesh),
        first=of_rows(jnp.int32),
        keys=of_rows(jax.eval_shape(lambda: jax.random.key(0)).dtype),
        step=_shape((), jnp.int32, mesh, ()),
        tokens=of_rows(jnp.int32, own // 2),
        log_probabilities=of_rows(jnp.float32, own // 2),
        done=of_rows(jnp.bool_),
    )
    return Prefix(_abstract_cache(model, rows, slots - own, mesh), of_rows(jnp.int32)), decoding


def _abstract_cache(model: ModelConfig, rows: int, slots: int, mesh: Mesh) -> KVCache:
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
