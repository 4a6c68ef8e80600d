"""Choosing the next token: greedy, or sampled at a temperature from the likeliest."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mufun_jax.errors import UserError


@struct.dataclass
class Sampling:
    """How the next token is drawn. Temperature 0 is greedy; `top_p` 1 and `top_k` 0 leave nothing out."""

    temperature: float = struct.field(pytree_node=False, default=0.0)
    top_p: float = struct.field(pytree_node=False, default=1.0)
    top_k: int = struct.field(pytree_node=False, default=0)

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UserError(f"temperature {self.temperature} is below 0; 0 is greedy, 1 the model's own distribution")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p} is not in (0, 1]; 1 leaves nothing out")
        if self.top_k < 0:
            raise UserError(f"top_k {self.top_k} is below 0; 0 leaves nothing out")


def sample(logits: Float[Array, "R V"], sampling: Sampling, key: jax.Array) -> Int[Array, " R"]:
    """One token a row. Row r draws with its own key, so a row's choice does not depend on its neighbours."""
    if sampling.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    logits = logits / sampling.temperature
    if sampling.top_k:
        kth = jax.lax.top_k(logits, min(sampling.top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if sampling.top_p < 1:
        logits = jnp.where(logits < _nucleus_floor(logits, sampling.top_p), -jnp.inf, logits)
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(logits.shape[0]))
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def _nucleus_floor(logits: Float[Array, "R V"], top_p: float) -> Float[Array, "R 1"]:
    """The smallest logit of the fewest likeliest tokens whose probabilities sum to at least `top_p`."""
    descending = -jnp.sort(-logits, axis=-1)
    probabilities = jax.nn.softmax(descending, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    last = (before < top_p).sum(-1, keepdims=True) - 1
    return jnp.take_along_axis(descending, last, axis=-1)
