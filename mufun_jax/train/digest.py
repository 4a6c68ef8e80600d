"""Checksums of arrays, computed where they lie: the same for the same bits in the same places, under any sharding.

Each element's bits are mixed with its place in the array by the finaliser of MurmurHash3 (Austin Appleby, public
domain), twice with other seeds, and summed modulo 2^32. A sum does not depend on its order: devices sum their own
part. Any change of the bits, or of their places, leaves both sums as they were with a chance of 2^-64.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

_SEEDS = (0x9E3779B9, 0x85EBCA6B)
Digests = dict[str, str]  # of each array by its path in the tree, as 16 hexadecimal digits


def digest_tree(tree: Any) -> Digests:
    """The digest of every array of a tree. Collective: all processes that hold a part call it, and get the same."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = jax.device_get(_digests([leaf for _, leaf in leaves]))
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): f"{int(high):08x}{int(low):08x}"
        for (path, _), (high, low) in zip(leaves, sums, strict=True)
    }


@jax.jit
def _digests(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_digest(leaf) for leaf in leaves]


@jax.jit  # traced once for each shape: a tree has few
def _digest(leaf: Array) -> UInt32[Array, " 2"]:
    bits = _bits(leaf)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis, size in enumerate(leaf.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    return jnp.stack([_mix(bits ^ _mix(place + jnp.uint32(seed))).sum(dtype=jnp.uint32) for seed in _SEEDS])


def _bits(leaf: Array) -> UInt32[Array, "*shape"]:
    """The bits of elements of one, two or four bytes."""
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)


def _mix(h: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = jax.lax.mul(_fold(h, shift), jax.lax.full_like(h, factor))
    return _fold(h, 16)


def _fold(h: UInt32[Array, "*shape"], shift: int) -> UInt32[Array, "*shape"]:
    """h ^ (h >> shift), by lax: jnp's operators take ten times as long to trace."""
    return jax.lax.bitwise_xor(h, jax.lax.shift_right_logical(h, jax.lax.full_like(h, shift)))
