"""The connector `blp_4i_2x`: tapped encoder features to the width of the decoder."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from mufun_jax import axes
from mufun_jax.model.compute import DType
from mufun_jax.model.layers import Projection, gelu


class Connector(nn.Module):
    """Linear, exact GELU, linear; both with bias. No norm, no dropout."""

    hidden_width: int
    width: int
    dtype: DType = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "B A features"]) -> Float[Array, "B A D"]:
        linear = {"bias": True, "dtype": self.dtype, "batch_axes": (axes.WINDOWS, None), "split": False}
        x = Projection((self.hidden_width,), (axes.FEATURES, axes.MLP), name="linear1", **linear)(features)
        x = gelu(x)
        return Projection((self.width,), (axes.MLP, axes.EMBED), name="linear2", **linear)(x)
