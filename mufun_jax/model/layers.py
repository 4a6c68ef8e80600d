"""The layers that encoder, connector and decoder are made of: projections, norms and rotary positions.

Parameters are float32 by default and carry logical axis names; `dtype` is what the matrix products run in.
Norms are computed in float32.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mufun_jax import axes
from mufun_jax.model.compute import DType
from mufun_jax.model.placement import project

WHISPER_NORM_EPSILON = 1e-5  # of every layer norm in Whisper


def parameter(
    module: nn.Module, name: str, init: Callable[..., Any], logical_axes: tuple[str, ...], shape: tuple[int, ...]
) -> jax.Array:
    """A parameter of `module`, its axes named for the sharding rules."""
    return cast(jax.Array, module.param(name, nn.with_logical_partitioning(init, logical_axes), shape))


class Projection(nn.Module):
    """A linear map over the last `contracted` axes of its input to `features`.

    `kernel_axes` names the kernel's axes, those that are summed over first. Weights start with variance 1 / fan-in.
    `batch_axes` names the input's other axes; with `split` heads and feed-forward units are shared out (see
    `placement.project`). Low-rank factors `a` and `b` in the collection `lora`
    add x a b (`mufun_jax.train.lora`).
    """

    features: tuple[int, ...]
    kernel_axes: tuple[str, ...]
    dtype: DType
    contracted: int = 1
    bias: bool = False
    batch_axes: tuple[str | None, ...] = (axes.ROWS, axes.POSITIONS)
    split: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        n = self.contracted
        init = nn.initializers.variance_scaling(
            1.0, "fan_in", "normal", in_axis=tuple(range(n)), out_axis=tuple(range(n, len(self.kernel_axes)))
        )
        shape = (*x.shape[-n:], *self.features)
        kernel = self.param("kernel", nn.with_logical_partitioning(init, self.kernel_axes), shape)  # or its int8 form
        x = x.astype(self.dtype)
        y = self._product(x, kernel, self.kernel_axes, n)
        if self.has_variable("lora", "a"):
            a, b = self.get_variable("lora", "a"), self.get_variable("lora", "b")
            within = self._product(x, a, (*self.kernel_axes[:n], axes.RANK), n)
            y = y + self._product(within, b, (axes.RANK, *self.kernel_axes[n:]), 1)
        if self.bias:
            whole = (axes.NORM,) * len(self.features)
            bias = parameter(self, "bias", nn.initializers.zeros, whole, self.features)
            y = y + bias.astype(self.dtype)
        return y

    def _product(self, x: jax.Array, kernel: Any, kernel_axes: tuple[str, ...], contracted: int) -> jax.Array:
        if hasattr(kernel, "qvalue"):  # a qwix.QArray; to import qwix takes long, and most models need none of it
            return _int8_product(x, kernel, contracted)
        return project(x, kernel, self.batch_axes, kernel_axes, contracted, self.split)


def _int8_product(x: jax.Array, kernel: Any, contracted: int) -> jax.Array:
    """x times an int8 kernel in the dtype of x. The integers are multiplied, and the product is scaled: they are
    bfloat16 numbers, where a dequantised kernel would be rounded once more."""
    product = jnp.tensordot(x, kernel.qvalue.astype(x.dtype), axes=contracted, preferred_element_type=jnp.float32)
    return (product * kernel.scale.reshape(kernel.scale.shape[contracted:])).astype(x.dtype)


@jax.custom_vjp
def gelu(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Exact GELU, x Phi(x), in float32. The backward pass finds x alone, and makes Phi once more."""
    x32 = x.astype(jnp.float32)
    return (x32 * _normal_cdf(x32)).astype(x.dtype)


def _gelu_backward(x, gradient):
    x32 = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * jnp.square(x32)) * (0.5 / jnp.pi) ** 0.5
    return ((_normal_cdf(x32) + x32 * density) * gradient.astype(jnp.float32)).astype(x.dtype)


gelu.defvjp(lambda x: (gelu(x), x), lambda x, gradient: (_gelu_backward(x, gradient),))


def _normal_cdf(x: jax.Array) -> jax.Array:
    """By the error function, as PyTorch: half the work of its complement, which `jax.nn.gelu` takes."""
    return 0.5 * (1.0 + jax.lax.erf(x * 0.5**0.5))


class LayerNorm(nn.Module):
    """Whisper's layer norm: (x - mean) / sqrt(variance + epsilon) times a scale, plus a bias, in float32.

    Scale and bias are rounded to `dtype` first, as all parameters are where they are used: so it is all the same
    whether they are kept in float32 or in `dtype`.
    """

    dtype: DType

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale = parameter(self, "scale", nn.initializers.ones, (axes.NORM,), (x.shape[-1],))
        bias = parameter(self, "bias", nn.initializers.zeros, (axes.NORM,), (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        centred = x32 - x32.mean(-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + WHISPER_NORM_EPSILON)
        return (centred * (factor * scale.astype(self.dtype)) + bias.astype(self.dtype)).astype(self.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) in float32, back to `dtype`, times a scale (Qwen3's order)."""

    epsilon: float
    dtype: DType

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale = parameter(self, "scale", nn.initializers.ones, (axes.NORM,), (x.shape[-1],))
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        return normed.astype(self.dtype) * scale.astype(self.dtype)


def rotate(x: Float[Array, "B L N H"], positions: Int[Array, "B L"], theta: float) -> Float[Array, "B L N H"]:
    """Rotary position embedding: halves (x1, x2) of each head turn by position x theta^(-2i/H).

    Angles and rotation are float32. Su et al. 2021, arXiv 2104.09864, in the half-split layout of Llama and Qwen.
    """
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    x1, x2 = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1).astype(x.dtype)
