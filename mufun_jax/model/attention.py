"""Scaled dot-product attention and the masks it takes."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e30  # instead of minus infinity, whose differences are not numbers


def attention(
    queries: Float[Array, "B L N H"],
    keys: Float[Array, "B C K H"],
    values: Float[Array, "B C K H"],
    mask: Bool[Array, "B 1 L C"] | None = None,
) -> Float[Array, "B L N H"]:
    """softmax(Q K^T / sqrt(H)) V; the N query heads share the K key/value heads in groups of N / K.

    Logits and softmax are float32 whatever the dtype of the operands. `mask` is true where a query may look.
    Heads come first and the queries of a group side by side, so that each product is one plain batched matrix
    product, and the sum of the exponentials divides the product, not each weight: on a CPU this is three times as
    fast, forward and backward, as einsums in the order of the arguments.
    """
    B, L, N, H = queries.shape
    C, K = keys.shape[1:3]
    group = N // K
    grouped = queries.reshape(B, L, K, group, H).transpose(0, 2, 3, 1, 4).reshape(B, K, group * L, H)
    keys, values = keys.transpose(0, 2, 1, 3), values.transpose(0, 2, 1, 3)
    # Scaled in float32: 1 / sqrt(128) is no bfloat16 number, and scaled queries would be rounded once more.
    logits = jnp.einsum("BKMH,BKCH->BKMC", grouped, keys, preferred_element_type=jnp.float32) * H**-0.5
    if mask is not None:
        logits = jnp.where(mask[:, :, None], logits.reshape(B, K, group, L, C), MASKED).reshape(B, K, group * L, C)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    total = weights.sum(-1, keepdims=True)
    mixed = jnp.einsum("BKMC,BKCH->BKMH", weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    mixed = (mixed / total).astype(values.dtype)
    return mixed.reshape(B, K, group, L, H).transpose(0, 3, 1, 2, 4).reshape(B, L, N, H)


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
