"""The key/value cache of the decoder: one slot a position, in every layer."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mufun_jax.config import DecoderConfig
from mufun_jax.model.compute import DType


@flax.struct.dataclass
class KVCache:
    """Keys (already rotated) and values. Slot c of a row belongs to position c of its sequence.

    With a leading layer axis outside the scan over layers, without it inside.
    """

    keys: Float[Array, "*layers B C K H"]
    values: Float[Array, "*layers B C K H"]

    @staticmethod
    def empty(config: DecoderConfig, batch: int, slots: int, dtype: DType) -> "KVCache":
        shape = (config.layers, batch, slots, config.kv_heads, config.head_size)
        return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def write(
        self, keys: Float[Array, "B L K H"], values: Float[Array, "B L K H"], positions: Int[Array, "B L"]
    ) -> "KVCache":
        """One layer's cache with the new keys and values at their positions."""
        rows = jnp.arange(positions.shape[0])[:, None]
        return jax.tree.map(
            lambda old, new: old.at[rows, positions].set(new.astype(old.dtype)), self, KVCache(keys, values)
        )
