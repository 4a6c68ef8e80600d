"""Query heads beside the key/value head that they share, and back: how attention of plain products begins and ends."""

import jax
from jaxtyping import Float

MASKED = -1e30  # a logit instead of minus infinity, whose differences are not numbers


def by_kv_head(x: Float[jax.Array, "B L N H"], kv_heads: int) -> Float[jax.Array, "B K group L H"]:
    """The queries of all heads that share a key, group = N / K of them."""
    B, L, N, H = x.shape
    return x.reshape(B, L, kv_heads, N // kv_heads, H).transpose(0, 2, 3, 1, 4)


def by_position(x: Float[jax.Array, "B K group L H"]) -> Float[jax.Array, "B L N H"]:
    """The inverse of `by_kv_head`."""
    B, K, group, L, H = x.shape
    return x.transpose(0, 3, 1, 2, 4).reshape(B, L, K * group, H)
