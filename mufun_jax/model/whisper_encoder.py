"""The Whisper encoder, tapped at several depths, each tap pooled at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mufun_jax import axes
from mufun_jax.config import CONVOLUTION_STRIDE, EncoderConfig
from mufun_jax.model.attention import full_attention
from mufun_jax.model.compute import Compute, name_layer_input, rematerialized
from mufun_jax.model.layers import LayerNorm, Projection, gelu, parameter
from mufun_jax.model.placement import constrain

_LONGEST_WAVELENGTH = 10_000.0  # of the position table
# A fresh encoder starts with a lower position table than Whisper's and with larger convolutions: at Whisper's scale
# the table drowns what fresh convolutions make of log-mel values near 0, and pitch above all is not learned (nano,
# 120 steps on single notes: token accuracy 0.61 with neither, 0.99 with both).
_FRESH_POSITIONS_SCALE = 0.3
_FRESH_CONVOLUTION_VARIANCE = 4.0


class WhisperEncoder(nn.Module):
    """log-mel windows -> audio features, 10 a second, one `width` for each tap.

    Layers are scanned; those that are tapped (7 and 15 of 32 in large-v3) leave their pooled output as the scan
    passes, so the hidden states of all layers never exist together. Tap 0 is the convolutions plus positions;
    the last tap has passed the final layer norm; those between are the bare residual stream.
    Where the collection `intermediates` is asked for, it gets the hidden states at every depth.
    """

    config: EncoderConfig
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, log_mel: Float[Array, "B mel_frames M"]) -> Float[Array, "B A features"]:
        config, dtype = self.config, self.compute.dtype
        hidden = gelu(self._convolution("conv1", axes.MEL, stride=1)(log_mel.astype(dtype)))
        hidden = gelu(self._convolution("conv2", axes.EMBED, CONVOLUTION_STRIDE)(hidden))
        table = (axes.FRAMES, axes.EMBED)
        positions = parameter(self, "positions", _fresh_positions, table, (config.frames, config.width))
        hidden = hidden + positions.astype(dtype)
        self.sow("intermediates", "first", hidden)

        first = [mean_pool(hidden, config.pool)] if config.taps[0] == 0 else []
        passed = [tap for tap in config.taps if 0 < tap < config.layers]
        tapped = jnp.zeros((len(passed), hidden.shape[0], config.tokens_per_window, config.width), dtype)
        layers = nn.scan(
            rematerialized(EncoderLayer, self.compute.remat),
            variable_axes={"params": 0, "lora": 0, "intermediates": 0},
            split_rngs={"params": True},
            length=config.layers,
            metadata_params={nn.PARTITION_NAME: axes.LAYERS},
        )(config, self.compute, tuple(passed), name="layers")
        (hidden, tapped), _ = layers((hidden, tapped), 1 + jnp.arange(config.layers))
        hidden = LayerNorm(dtype, name="norm")(hidden)
        self.sow("intermediates", "last", hidden)
        return jnp.concatenate([*first, *tapped, mean_pool(hidden, config.pool)], axis=-1)

    def _convolution(self, name: str, axis_in: str, stride: int) -> nn.Conv:
        # Both ends named "embed" would put one mesh axis on two dimensions: the input stays whole.
        return nn.Conv(
            self.config.width,
            kernel_size=(3,),
            strides=(stride,),
            padding=((1, 1),),
            dtype=self.compute.dtype,
            kernel_init=nn.with_logical_partitioning(
                nn.initializers.variance_scaling(_FRESH_CONVOLUTION_VARIANCE, "fan_in", "normal"),
                (axes.KERNEL, axes.MEL if axis_in == axes.MEL else axes.NORM, axes.EMBED),
            ),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (axes.NORM,)),
            name=name,
        )


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward, with exact GELU; keys have no bias.

    `depth` counts layers from 1. If it is one of `passed`, the pooled output is kept in its place of `tapped`.
    """

    config: EncoderConfig
    compute: Compute
    passed: tuple[int, ...]

    @nn.compact
    def __call__(
        self, carry: tuple[Float[Array, "B F D"], Float[Array, "taps B A D"]], depth: Int[Array, ""]
    ) -> tuple[tuple[Float[Array, "B F D"], Float[Array, "taps B A D"]], None]:
        hidden, tapped = carry
        config, dtype = self.config, self.compute.dtype
        heads = (config.heads, config.width // config.heads)
        into_heads, from_heads = (axes.EMBED, axes.HEADS, axes.HEAD_SIZE), (axes.HEADS, axes.HEAD_SIZE, axes.EMBED)
        linear = {"dtype": dtype, "batch_axes": (axes.WINDOWS, None), "split": False}  # each device has its windows

        hidden = name_layer_input(constrain(hidden, axes.WINDOWS, None, None))
        x = LayerNorm(dtype, name="attention_norm")(hidden)
        queries = Projection(heads, into_heads, bias=True, name="query", **linear)(x)
        keys = Projection(heads, into_heads, name="key", **linear)(x)
        values = Projection(heads, into_heads, bias=True, name="value", **linear)(x)
        x = full_attention(queries, keys, values, self.compute)
        x = Projection((config.width,), from_heads, contracted=2, bias=True, name="out", **linear)(x)
        hidden = hidden + x

        x = LayerNorm(dtype, name="mlp_norm")(hidden)
        x = Projection((config.mlp_width,), (axes.EMBED, axes.MLP), bias=True, name="up", **linear)(x)
        x = gelu(x)
        x = Projection((config.width,), (axes.MLP, axes.EMBED), bias=True, name="down", **linear)(x)
        hidden = hidden + x
        self.sow("intermediates", "hidden", hidden)

        here = (jnp.array(self.passed, jnp.int32) == depth)[:, None, None, None]
        return (hidden, jnp.where(here, mean_pool(hidden, config.pool), tapped)), None


def mean_pool(hidden: Float[Array, "B F D"], pool: int) -> Float[Array, "B A D"]:
    """The mean of each `pool` consecutive frames (stride `pool`), summed in float32."""
    batch, frames, width = hidden.shape
    grouped = hidden.reshape(batch, frames // pool, pool, width)
    return jnp.mean(grouped, axis=2, dtype=jnp.float32).astype(hidden.dtype)


def sinusoids(frames: int, width: int) -> Float[np.ndarray, "F D"]:
    """Whisper's position table: sines in the first half of the width, cosines in the second."""
    rates = _LONGEST_WAVELENGTH ** (-np.arange(width // 2) / (width // 2 - 1))
    angles = np.arange(frames)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _fresh_positions(_key: jax.Array, shape: tuple[int, int]) -> Float[Array, "F D"]:
    return jnp.asarray(_FRESH_POSITIONS_SCALE * sinusoids(*shape), jnp.float32)
