"""The Qwen3 decoder: embeddings of text and audio in, hidden states out, logits where they are asked for."""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mufun_jax import axes
from mufun_jax.config import DecoderConfig
from mufun_jax.model.attention import cached_attention, own_slots, packed_attention
from mufun_jax.model.compute import Compute, name_layer_input, rematerialized
from mufun_jax.model.kv_cache import KVCache, LayerCaches, Prefix
from mufun_jax.model.layers import Projection, RMSNorm, parameter, rotate
from mufun_jax.model.placement import constrain
from mufun_jax.model.vocabulary import TokenLosses, token_losses

_EMBEDDING_INIT = nn.initializers.normal(stddev=0.02)  # Qwen3's initializer_range


class Qwen3Decoder(nn.Module):
    """A stack of Qwen3 layers over embeddings; `embed` is its one end, `logits` or `losses` the other."""

    config: DecoderConfig
    compute: Compute = Compute()

    def setup(self) -> None:
        config, dtype = self.config, self.compute.dtype
        embedding_shape = (config.vocab_size, config.width)
        self.embedding = parameter(self, "embedding", _EMBEDDING_INIT, (axes.VOCAB, axes.EMBED), embedding_shape)
        layers: Callable[..., nn.Module] = _scanned if self.compute.scan_layers else LayersApart
        self.layers = cast(Any, layers(config, self.compute))
        self.norm = RMSNorm(config.norm_epsilon, dtype)
        if not config.tied_embeddings:
            self.head = Projection((config.vocab_size,), (axes.EMBED, axes.VOCAB), dtype=dtype, name="head")

    def embed(self, tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
        """Text embeddings. Each device looks its part of the width up for all rows: the table is never gathered."""
        tokens = constrain(tokens, axes.LOOKUP_ROWS, axes.POSITIONS)
        embeddings = constrain(look_up(self.embedding, tokens), axes.LOOKUP_ROWS, axes.POSITIONS, axes.LOOKUP_WIDTH)
        return constrain(embeddings.astype(self.compute.dtype), axes.ROWS, axes.POSITIONS, None)

    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"] | None,
        cache: LayerCaches | None = None,
        prefix: Prefix | None = None,
    ) -> tuple[Float[Array, "B L D"], LayerCaches | None]:
        """Embeddings to final (normed) hidden states.

        With `segment_ids`, positions see those before them in their packed example. With a cache, their keys and
        values are written to it; without `segment_ids` they see the prefix and the cache, up to their own position.
        """
        layers, lengths = (None, None) if prefix is None else (prefix.cache, prefix.lengths)
        hidden, cache = self.layers(hidden, positions, segment_ids, cache, layers, lengths)
        return self.norm(hidden), cache

    def logits(self, hidden: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Next-token logits, float32."""
        if self.config.tied_embeddings:
            logits = jnp.einsum("...d,vd->...v", hidden, self.embedding.astype(self.compute.dtype))
        else:
            logits = self.head(hidden)
        return logits.astype(jnp.float32)

    def losses(self, hidden: Float[Array, "R T D"], targets: Int[Array, "R T"]) -> TokenLosses:
        """What each target costs. The logits never exist together."""
        table = self.embedding.T if self.config.tied_embeddings else self.head.variables["params"]["kernel"]
        return token_losses(hidden, table, targets)


@jax.custom_vjp
def look_up(table: Float[Array, "V D"], tokens: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """Rows of a table. A token's gradients are summed in float32, whatever the table's dtype: it may come often."""
    return table[tokens]


def look_up_forward(table, tokens):
    return table[tokens], (table, tokens)


def look_up_backward(residuals, gradient):
    table, tokens = residuals
    summed = jnp.zeros(table.shape, jnp.float32).at[tokens].add(gradient.astype(jnp.float32))
    return summed.astype(table.dtype), None


look_up.defvjp(look_up_forward, look_up_backward)


def _scanned(config: DecoderConfig, compute: Compute) -> nn.Module:
    """All layers as one, which is compiled once; parameters and caches have a leading axis of layers."""
    return nn.scan(
        rematerialized(DecoderLayer, compute.remat),
        variable_axes={"params": 0, "lora": 0, "intermediates": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast, 0, 0, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=config.layers,
        metadata_params={nn.PARTITION_NAME: axes.LAYERS},
    )(config, compute)


class LayersApart(nn.Module):
    """The layers one after the other, each with parameters and caches of its own; they are called "0", "1", …"""

    config: DecoderConfig
    compute: Compute

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"] | None,
        caches: tuple[KVCache, ...] | None,
        prefix_caches: tuple[KVCache, ...] | None,
        prefix_lengths: Int[Array, " G"] | None,
    ) -> tuple[Float[Array, "B L D"], tuple[KVCache, ...] | None]:
        longer = []
        for number in range(self.config.layers):
            layer = DecoderLayer(self.config, self.compute, name=str(number))
            cache = None if caches is None else caches[number]
            prefix_cache = None if prefix_caches is None else prefix_caches[number]
            hidden, cache = layer(hidden, positions, segment_ids, cache, prefix_cache, prefix_lengths)
            longer.append(cache)
        return hidden, None if caches is None else tuple(longer)


class DecoderLayer(nn.Module):
    """Pre-norm grouped-query attention, with RMSNorm on each head's query and key, and a SwiGLU. No biases.

    Where the collection `intermediates` is asked for, it gets the queries.
    """

    config: DecoderConfig
    compute: Compute

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        positions: Int[Array, "B L"],
        segment_ids: Int[Array, "B L"] | None,
        cache: KVCache | None,
        prefix_cache: KVCache | None = None,
        prefix_lengths: Int[Array, " G"] | None = None,
    ) -> tuple[Float[Array, "B L D"], KVCache | None]:
        config, dtype = self.config, self.compute.dtype
        query_heads, kv_heads = (config.heads, config.head_size), (config.kv_heads, config.head_size)

        hidden = name_layer_input(constrain(hidden, axes.ROWS, axes.POSITIONS, None))
        x = RMSNorm(config.norm_epsilon, dtype, name="attention_norm")(hidden)
        queries = Projection(query_heads, (axes.EMBED, axes.HEADS, axes.HEAD_SIZE), dtype=dtype, name="query")(x)
        keys = Projection(kv_heads, (axes.EMBED, axes.KV_HEADS, axes.HEAD_SIZE), dtype=dtype, name="key")(x)
        values = Projection(kv_heads, (axes.EMBED, axes.KV_HEADS, axes.HEAD_SIZE), dtype=dtype, name="value")(x)
        queries = RMSNorm(config.norm_epsilon, dtype, name="query_norm")(queries)
        keys = RMSNorm(config.norm_epsilon, dtype, name="key_norm")(keys)
        queries = rotate(queries, positions, config.rope_theta)
        keys = rotate(keys, positions, config.rope_theta)
        self.sow("intermediates", "queries", queries)
        prefix = None
        if prefix_cache is not None and prefix_lengths is not None:
            prefix = Prefix(prefix_cache, prefix_lengths)
        if cache is not None:
            cache = cache.write(keys, values, own_slots(positions, prefix))
        if segment_ids is not None:
            x = packed_attention(queries, keys, values, segment_ids, self.compute, one_example=cache is not None)
        else:
            assert cache is not None
            x = cached_attention(queries, positions, cache, prefix)
        out_axes = (axes.HEADS, axes.HEAD_SIZE, axes.EMBED)
        hidden = hidden + Projection((config.width,), out_axes, contracted=2, dtype=dtype, name="out")(x)

        x = RMSNorm(config.norm_epsilon, dtype, name="mlp_norm")(hidden)
        gate = Projection((config.mlp_width,), (axes.EMBED, axes.MLP), dtype=dtype, name="gate")(x)
        up = Projection((config.mlp_width,), (axes.EMBED, axes.MLP), dtype=dtype, name="up")(x)
        x = Projection((config.width,), (axes.MLP, axes.EMBED), dtype=dtype, name="down")(nn.silu(gate) * up)
        return hidden + x, cache
