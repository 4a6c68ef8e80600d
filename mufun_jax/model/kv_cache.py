"""Keys and values that decoding has computed: what a row has for itself, and what several rows have in common.

A song of 390 s is 3,900 positions, a question and its answer a hundred. Rows that ask about one song share its part,
the prefix, which is computed once and never written again; each row writes into a small cache of its own.
"""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mufun_jax.config import DecoderConfig
from mufun_jax.model.compute import Compute, DType

_LARGEST = 127  # of int8, which is used symmetrically


@flax.struct.dataclass
class KVCache:
    """Keys (already rotated) and values, one slot a position, heads first: each head's are one plain matrix.

    With a leading layer axis outside the scan over layers, without it inside. As int8 each slot of each head has a
    scale, by which its integers are multiplied.
    """

    keys: Num[Array, "*layers B K C H"]
    values: Num[Array, "*layers B K C H"]
    key_scales: Float[Array, "*layers B K C"] | None = None
    value_scales: Float[Array, "*layers B K C"] | None = None

    @staticmethod
    def empty(leading: tuple[int, ...], slots: int, config: DecoderConfig, dtype: DType) -> "KVCache":
        """Rows, or layers and rows, with nothing written."""
        shape = (*leading, config.kv_heads, slots, config.head_size)
        return KVCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

    def write(
        self, keys: Float[Array, "B L K H"], values: Float[Array, "B L K H"], slots: Int[Array, "B L"]
    ) -> "KVCache":
        """One layer's cache with new keys and values in their slots."""
        rows = jnp.arange(slots.shape[0])[:, None]
        return KVCache(
            self.keys.at[rows, :, slots].set(keys.astype(self.keys.dtype)),
            self.values.at[rows, :, slots].set(values.astype(self.values.dtype)),
        )

    def quantized(self) -> "KVCache":
        """As int8: half the bytes of bfloat16, and a scale for each 128 of them or so."""
        keys, key_scales = _int8(self.keys)
        values, value_scales = _int8(self.values)
        return KVCache(keys, values, key_scales, value_scales)


LayerCaches = KVCache | tuple[KVCache, ...]  # of all layers: stacked, or each on its own (see `Compute.scan_layers`)


def empty_caches(config: DecoderConfig, batch: int, slots: int, compute: Compute) -> LayerCaches:
    """The caches of all layers, with nothing written."""
    if compute.scan_layers:
        return KVCache.empty((config.layers, batch), slots, config, compute.dtype)
    return tuple(KVCache.empty((batch,), slots, config, compute.dtype) for _ in range(config.layers))


def quantized(caches: LayerCaches) -> LayerCaches:
    """All layers' as int8."""
    return caches.quantized() if isinstance(caches, KVCache) else tuple(cache.quantized() for cache in caches)


@flax.struct.dataclass
class Prefix:
    """The first positions of G groups of as many rows each. Row r belongs to group r // (rows / G)."""

    cache: LayerCaches  # of G rows; in a layer its own
    lengths: Int[Array, " G"]  # slots beyond are not seen

    @property
    def slots(self) -> int:
        cache = self.cache if isinstance(self.cache, KVCache) else self.cache[0]
        return cache.keys.shape[-2]


def _int8(x: Float[Array, "*B H"]) -> tuple[Int[Array, "*B H"], Float[Array, "*B"]]:
    """The nearest of 255 multiples of a scale, which the largest of the H numbers sets."""
    scales = jnp.abs(x.astype(jnp.float32)).max(-1) / _LARGEST
    divided = x.astype(jnp.float32) / jnp.maximum(scales, 1e-30)[..., None]
    return jnp.round(divided).astype(jnp.int8), scales
