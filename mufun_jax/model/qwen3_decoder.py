"""The Qwen3 decoder: embeddings of text and audio in, hidden states out, logits where they are asked for."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mufun_jax import axes
from mufun_jax.config import DecoderConfig
from mufun_jax.model.attention import attention
from mufun_jax.model.kv_cache import KVCache
from mufun_jax.model.layers import DType, Projection, RMSNorm, parameter, rotate

_EMBEDDING_INIT = nn.initializers.normal(stddev=0.02)  # Qwen3's initializer_range


class Qwen3Decoder(nn.Module):
    """A stack of Qwen3 layers over embeddings; `embed` and `logits` are its two ends."""

    config: DecoderConfig
    dtype: DType = jnp.float32
    rematerialize: bool = False

    def setup(self) -> None:
        config = self.config
        embedding_shape = (config.vocab_size, config.width)
        self.embedding = parameter(self, "embedding", _EMBEDDING_INIT, (axes.VOCAB, axes.EMBED), embedding_shape)
        layer = nn.remat(DecoderLayer, prevent_cse=False) if self.rematerialize else DecoderLayer
        self.layers = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
            length=config.layers,
            metadata_params={nn.PARTITION_NAME: axes.LAYERS},
        )(config, self.dtype)
        self.norm = RMSNorm(config.norm_epsilon, self.dtype)
        if not config.tied_embeddings:
            self.head = Projection((config.vocab_size,), (axes.EMBED, axes.VOCAB), dtype=self.dtype, name="head")

    def embed(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Text embeddings."""
        return self.embedding.astype(self.dtype)[tokens]

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        positions: Int[Array, "B L"],
        mask: Bool[Array, "B 1 L C"],
        cache: KVCache | None = None,
    ) -> tuple[Float[Array, "B L D"], KVCache | None]:
        """Embeddings to final (normed) hidden states. With a cache, keys and values go through it: C slots."""
        hidden, cache = self.layers(hidden, positions, mask, cache)
        return self.norm(hidden), cache

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Next-token logits, float32."""
        if self.config.tied_embeddings:
            logits = jnp.einsum("...d,vd->...v", hidden, self.embedding.astype(self.dtype))
        else:
            logits = self.head(hidden)
        return logits.astype(jnp.float32)


class DecoderLayer(nn.Module):
    """Pre-norm grouped-query attention, with RMSNorm on each head's query and key, and a SwiGLU. No biases."""

    config: DecoderConfig
    dtype: DType

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        positions: Int[Array, "B L"],
        mask: Bool[Array, "B 1 L C"],
        cache: KVCache | None,
    ) -> tuple[Float[Array, "B L D"], KVCache | None]:
        config, dtype = self.config, self.dtype
        query_heads, kv_heads = (config.heads, config.head_size), (config.kv_heads, config.head_size)

        x = RMSNorm(config.norm_epsilon, dtype, name="attention_norm")(hidden)
        queries = Projection(query_heads, (axes.EMBED, axes.HEADS, axes.HEAD_SIZE), dtype=dtype, name="query")(x)
        keys = Projection(kv_heads, (axes.EMBED, axes.KV_HEADS, axes.HEAD_SIZE), dtype=dtype, name="key")(x)
        values = Projection(kv_heads, (axes.EMBED, axes.KV_HEADS, axes.HEAD_SIZE), dtype=dtype, name="value")(x)
        queries = RMSNorm(config.norm_epsilon, dtype, name="query_norm")(queries)
        keys = RMSNorm(config.norm_epsilon, dtype, name="key_norm")(keys)
        queries = rotate(queries, positions, config.rope_theta)
        keys = rotate(keys, positions, config.rope_theta)
        if cache is not None:
            cache = cache.write(keys, values, positions)
            keys, values = cache.keys.astype(dtype), cache.values.astype(dtype)
        x = attention(queries, keys, values, mask)
        out_axes = (axes.HEADS, axes.HEAD_SIZE, axes.EMBED)
        hidden = hidden + Projection((config.width,), out_axes, contracted=2, dtype=dtype, name="out")(x)

        x = RMSNorm(config.norm_epsilon, dtype, name="mlp_norm")(hidden)
        gate = Projection((config.mlp_width,), (axes.EMBED, axes.MLP), dtype=dtype, name="gate")(x)
        up = Projection((config.mlp_width,), (axes.EMBED, axes.MLP), dtype=dtype, name="up")(x)
        x = Projection((config.width,), (axes.MLP, axes.EMBED), dtype=dtype, name="down")(nn.silu(gate) * up)
        return hidden + x, cache
