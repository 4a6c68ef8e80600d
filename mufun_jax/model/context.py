"""A sequence split over the devices of the mesh axis `context`.

Causal attention gives later positions more to look at. So the sequence is cut into two chunks a device, and device i
of C takes chunks i and 2C - 1 - i: an early and a late one, the same work for all. With C = 2 and 8 positions:

    device 0: 0 1 . . . . 6 7        device 1: . . 2 3 4 5 . .

In this `zigzag` order positions lie from the embeddings to the loss. Keys and values of all devices are gathered
(`gather_in_order`; 8 heads of them are small), or go round a ring (`ring_attention`), which never holds them all.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from mufun_jax.model.compute import ATTENTION_OUT
from mufun_jax.model.head_groups import MASKED, by_kv_head, by_position
from mufun_jax.model.placement import axis_size

AXIS = "context"


def zigzag(length: int, shards: int) -> np.ndarray:
    """The position that stands at each place of the split sequence: [length]. Without a split, all in order."""
    if shards == 1:
        return np.arange(length)
    if length % (2 * shards):
        raise ValueError(f"{length} positions do not divide into 2 x {shards} chunks")
    chunks = np.arange(length).reshape(2 * shards, -1)
    return np.concatenate([chunks[[i, 2 * shards - 1 - i]].reshape(-1) for i in range(shards)])


def places(length: int, shards: int) -> np.ndarray:
    """Where each position stands in the order of `zigzag`: its inverse."""
    return np.argsort(zigzag(length, shards))


def local_positions(length: int) -> Int[Array, " L"]:
    """The positions that this device holds, `length` of them, in their order."""
    shards = axis_size(AXIS)
    if shards == 1:
        return jnp.arange(length)
    device, chunk = jax.lax.axis_index(AXIS), length // 2
    first = jnp.stack([device, 2 * shards - 1 - device]) * chunk
    return (first[:, None] + jnp.arange(chunk)).reshape(-1)


def gather_in_order(x: Array) -> Array:
    """All devices' parts of [B, L / C, …], as [B, L, …] in the order of positions."""
    shards = axis_size(AXIS)
    if shards == 1:
        return x
    parts = jax.lax.all_gather(x, AXIS, axis=1)  # [B, C, L / C, …]
    batch, _, length, *rest = parts.shape
    chunks = parts.reshape(batch, shards, 2, length // 2, *rest)
    in_order = jnp.concatenate([chunks[:, :, 0], chunks[:, ::-1, 1]], axis=1)
    return in_order.reshape(batch, shards * length, *rest)


def ring_attention(
    queries: Float[Array, "B L N H"],
    keys: Float[Array, "B L K H"],
    values: Float[Array, "B L K H"],
    segment_ids: Int[Array, "B L"],
) -> Float[Array, "B L N H"]:
    """Causal attention within packed examples; keys and values visit each device in turn.

    Liu et al. 2023, arXiv 2310.01889. Softmax is accumulated in float32 over the visits; the backward pass goes round
    once more, the gradients of keys and values travelling with them.
    """
    return _ring(queries, keys, values, segment_ids)


@jax.custom_vjp
def _ring(queries, keys, values, segment_ids):
    return _ring_forward(queries, keys, values, segment_ids)[0]


def _ring_forward(queries, keys, values, segment_ids):
    grouped = by_kv_head(queries, keys.shape[2])
    batch, kv_heads, group, length, size = grouped.shape
    mine = (local_positions(length), segment_ids)

    def visit(carry, _):
        (keys, values, theirs), (highest, total, mixed) = carry
        logits = _logits(grouped, keys, mine, theirs)
        new_highest = jnp.maximum(highest, logits.max(-1))
        weights, shrink = jnp.exp(logits - new_highest[..., None]), jnp.exp(highest - new_highest)
        total = total * shrink + weights.sum(-1)
        product = jnp.einsum(
            "BKGLC,BCKH->BKGLH", weights.astype(values.dtype), values, preferred_element_type=jnp.float32
        )
        mixed = mixed * shrink[..., None] + product
        return (_pass_on((keys, values, theirs)), (new_highest, total, mixed)), None

    shape = (batch, kv_heads, group, length)
    start = (jnp.full(shape, MASKED, jnp.float32), jnp.zeros(shape), jnp.zeros((*shape, size)))
    (_, (highest, total, mixed)), _ = jax.lax.scan(visit, ((keys, values, mine), start), length=axis_size(AXIS))
    out = checkpoint_name(by_position(mixed / total[..., None]).astype(queries.dtype), ATTENTION_OUT)
    log_total = checkpoint_name(highest + jnp.log(total), ATTENTION_OUT)
    return out, (queries, keys, values, segment_ids, out, log_total)


def _ring_backward(residuals, gradient):
    queries, keys, values, segment_ids, out, log_total = residuals
    kv_heads = keys.shape[2]
    grouped, d_out = by_kv_head(queries, kv_heads), by_kv_head(gradient, kv_heads)
    mean = jnp.sum(d_out.astype(jnp.float32) * by_kv_head(out, kv_heads).astype(jnp.float32), axis=-1)
    mine = (local_positions(queries.shape[1]), segment_ids)
    scale = queries.shape[-1] ** -0.5
    product = partial(jnp.einsum, preferred_element_type=jnp.float32)

    def visit(carry, _):
        (keys, values, theirs, d_keys, d_values), d_queries = carry
        weights = jnp.exp(_logits(grouped, keys, mine, theirs) - log_total[..., None])
        d_weights = product("BKGLH,BCKH->BKGLC", d_out, values)
        d_logits = (weights * (d_weights - mean[..., None]) * scale).astype(queries.dtype)
        d_values += product("BKGLC,BKGLH->BCKH", weights.astype(queries.dtype), d_out)
        d_keys += product("BKGLC,BKGLH->BCKH", d_logits, grouped)
        d_queries += product("BKGLC,BCKH->BKGLH", d_logits, keys)
        return (_pass_on((keys, values, theirs, d_keys, d_values)), d_queries), None

    zeros = jnp.zeros(keys.shape, jnp.float32)
    start = ((keys, values, mine, zeros, zeros), jnp.zeros(grouped.shape, jnp.float32))
    ((_, _, _, d_keys, d_values), d_queries), _ = jax.lax.scan(visit, start, length=axis_size(AXIS))
    return by_position(d_queries).astype(queries.dtype), d_keys.astype(keys.dtype), d_values.astype(values.dtype), None


_ring.defvjp(_ring_forward, _ring_backward)


def _logits(grouped, keys, mine, theirs) -> Float[Array, "B K group L C"]:
    (positions, segments), (key_positions, key_segments) = mine, theirs
    seen = (key_positions <= positions[:, None]) & (segments[:, :, None] == key_segments[:, None, :])
    logits = jnp.einsum("BKGLH,BCKH->BKGLC", grouped, keys, preferred_element_type=jnp.float32)
    return jnp.where(seen[:, None, None], logits * keys.shape[-1] ** -0.5, MASKED)


def _pass_on(visitors: Any) -> Any:
    shards = axis_size(AXIS)
    if shards == 1:
        return visitors
    ring = [(device, (device + 1) % shards) for device in range(shards)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, ring), visitors)
