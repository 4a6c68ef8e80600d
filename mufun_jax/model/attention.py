"""Scaled dot-product attention and the masks it takes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def attention(
    queries: Float[Array, "B L N H"],
    keys: Float[Array, "B C K H"],
    values: Float[Array, "B C K H"],
    mask: Bool[Array, "B 1 L C"] | None = None,
) -> Float[Array, "B L N H"]:
    """softmax(Q K^T / sqrt(H)) V; the N query heads share the K key/value heads in groups of N / K.

    Logits and softmax are float32 whatever the dtype of the operands. `mask` is true where a query may look.
    """
    return jax.nn.dot_product_attention(queries, keys, values, mask=mask)


def packed_causal_mask(segment_ids: Int[Array, "B L"]) -> Bool[Array, "B 1 L L"]:
    """Causal, and within one packed example only. Padding (segment 0) sees itself, so no row is empty.

    segment_ids 1 1 2 2 0 gives

        1 . . . .
        1 1 . . .
        . . 1 . .
        . . 1 1 .
        . . . . 1
    """
    same_example = segment_ids[:, :, None] == segment_ids[:, None, :]
    causal = jnp.tril(jnp.ones(same_example.shape[1:], bool))
    return (same_example & causal)[:, None]


def cache_mask(positions: Int[Array, "B L"], slots: int) -> Bool[Array, "B 1 L C"]:
    """Each query sees the cache slots up to its own position, where its own key was just written.

    Slots beyond a row's position may hold a shorter prompt's padding; they are overwritten before they are seen.
    """
    return (jnp.arange(slots) <= positions[:, :, None])[:, None]
