"""The Whisper encoder, tapped at several depths, each tap pooled at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mufun_jax import axes
from mufun_jax.config import CONVOLUTION_STRIDE, EncoderConfig
from mufun_jax.model.attention import attention
from mufun_jax.model.layers import DType, Projection, layer_norm, parameter

_LONGEST_WAVELENGTH = 10_000.0  # of the position table
# A fresh encoder starts with a lower position table than Whisper's and with larger convolutions: at Whisper's scale
# the table drowns what fresh convolutions make of log-mel values near 0, and pitch above all is not learned (nano,
# 120 steps on single notes: token accuracy 0.61 with neither, 0.99 with both).
_FRESH_POSITIONS_SCALE = 0.3
_FRESH_CONVOLUTION_VARIANCE = 4.0


class WhisperEncoder(nn.Module):
    """log-mel windows -> audio features, 10 a second, one `width` for each tap.

    Layers are scanned in segments between the taps (0 -> 7 -> 15 -> 32 in large-v3), and each tap is pooled where
    it is met, so the hidden states of all layers never exist together. Tap 0 is the convolutions plus positions;
    the last tap has passed the final layer norm; those between are the bare residual stream.
    """

    config: EncoderConfig
    dtype: DType = jnp.float32
    rematerialize: bool = False

    @nn.compact
    def __call__(self, log_mel: Float[Array, "B mel_frames M"]) -> Float[Array, "B A features"]:
        config = self.config
        hidden = nn.gelu(self._convolution("conv1", axes.MEL, stride=1)(log_mel.astype(self.dtype)), False)
        hidden = nn.gelu(self._convolution("conv2", axes.EMBED, CONVOLUTION_STRIDE)(hidden), False)
        table = (axes.FRAMES, axes.EMBED)
        positions = parameter(self, "positions", _fresh_positions, table, (config.frames, config.width))
        hidden = hidden + positions.astype(self.dtype)

        pooled, depth = [], 0
        for tap in config.taps:
            if tap > depth:
                hidden = self._layers(depth, tap)(hidden)
                depth = tap
            if tap == config.layers:
                hidden = layer_norm(dtype=self.dtype, name="norm")(hidden)
            pooled.append(mean_pool(hidden, config.pool))
        return jnp.concatenate(pooled, axis=-1)

    def _convolution(self, name: str, axis_in: str, stride: int) -> nn.Conv:
        # Both ends named "embed" would put one mesh axis on two dimensions: the input stays whole.
        return nn.Conv(
            self.config.width,
            kernel_size=(3,),
            strides=(stride,),
            padding=((1, 1),),
            dtype=self.dtype,
            kernel_init=nn.with_logical_partitioning(
                nn.initializers.variance_scaling(_FRESH_CONVOLUTION_VARIANCE, "fan_in", "normal"),
                (axes.KERNEL, axes.MEL if axis_in == axes.MEL else axes.NORM, axes.EMBED),
            ),
            bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (axes.NORM,)),
            name=name,
        )

    def _layers(self, first: int, end: int):
        """Layers `first` up to `end`, scanned: their parameters are stacked on a leading axis."""
        layer = nn.remat(EncoderLayer, prevent_cse=False) if self.rematerialize else EncoderLayer
        scanned = nn.scan(
            layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=end - first,
            metadata_params={nn.PARTITION_NAME: axes.LAYERS},
        )(self.config, self.dtype, name=f"layers_{first}_{end}")
        return lambda hidden: scanned(hidden, None)[0]


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward, with exact GELU; keys have no bias."""

    config: EncoderConfig
    dtype: DType

    @nn.compact
    def __call__(self, hidden: Float[Array, "B F D"], _: None) -> tuple[Float[Array, "B F D"], None]:
        config, dtype = self.config, self.dtype
        heads = (config.heads, config.width // config.heads)
        into_heads = (axes.EMBED, axes.HEADS, axes.HEAD_SIZE)

        x = layer_norm(dtype=dtype, name="attention_norm")(hidden)
        queries = Projection(heads, into_heads, bias=True, dtype=dtype, name="query")(x)
        keys = Projection(heads, into_heads, dtype=dtype, name="key")(x)
        values = Projection(heads, into_heads, bias=True, dtype=dtype, name="value")(x)
        x = attention(queries, keys, values)
        hidden = hidden + Projection(
            (config.width,),
            (axes.HEADS, axes.HEAD_SIZE, axes.EMBED),
            contracted=2,
            bias=True,
            dtype=dtype,
            name="out",
        )(x)

        x = layer_norm(dtype=dtype, name="mlp_norm")(hidden)
        x = Projection((config.mlp_width,), (axes.EMBED, axes.MLP), bias=True, dtype=dtype, name="up")(x)
        x = nn.gelu(x, approximate=False)
        x = Projection((config.width,), (axes.MLP, axes.EMBED), bias=True, dtype=dtype, name="down")(x)
        return hidden + x, None


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
