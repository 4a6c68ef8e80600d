"""Choosing the next token: greedy, or sampled at a temperature from the likeliest."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from mufun_jax.errors import UserError

_MOST_PENALTY = 10.0


class Kind(NamedTuple):
    """What a program that draws tokens has to do; the numbers are its arguments, so that none is compiled twice."""

    greedy: bool
    truncated: bool  # by top_p or top_k: the logits are sorted
    penalized: bool


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Temperature 0 is greedy; `top_p` 1 and `top_k` 0 leave nothing out.

    `repetition_penalty` divides the positive logits of tokens that the answer has already, and multiplies the negative
    ones (Keskar et al. 2019, arXiv 1909.05858, with the sign of `transformers`); 1 changes nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise UserError(f"temperature {self.temperature} is below 0; 0 is greedy, 1 the model's own distribution")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p {self.top_p} is not in (0, 1]; 1 leaves nothing out")
        if self.top_k < 0:
            raise UserError(f"top_k {self.top_k} is below 0; 0 leaves nothing out")
        if not 1 <= self.repetition_penalty <= _MOST_PENALTY:
            raise UserError(
                f"repetition_penalty {self.repetition_penalty} is not in [1, {_MOST_PENALTY:g}]; 1 changes nothing"
            )

    @property
    def kind(self) -> Kind:
        greedy = self.temperature == 0
        return Kind(greedy, not greedy and (self.top_p < 1 or self.top_k > 0), self.repetition_penalty > 1)

    @property
    def numbers(self) -> Float[np.ndarray, " 4"]:
        return np.array([self.temperature, self.top_p, self.top_k, self.repetition_penalty], np.float32)


def sample(
    logits: Float[Array, "R V"], kind: Kind, numbers: Float[Array, " 4"], keys: Key[Array, " R"]
) -> Int[Array, " R"]:
    """One token a row, each drawn with a key of its own. `numbers` are those of `Sampling`."""
    if kind.greedy:
        return logits.argmax(-1).astype(jnp.int32)
    temperature, top_p, top_k, _ = numbers
    logits = logits / temperature
    if kind.truncated:
        logits = jnp.where(logits < _least(logits, top_p, top_k), -jnp.inf, logits)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def penalize(
    logits: Float[Array, "R V"], there: Bool[Array, "R V"], numbers: Float[Array, " 4"]
) -> Float[Array, "R V"]:
    """Makes tokens that are `there` less likely, by `repetition_penalty`."""
    penalty = numbers[3]
    return jnp.where(there, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def _least(logits: Float[Array, "R V"], top_p: Float[Array, ""], top_k: Float[Array, ""]) -> Float[Array, "R 1"]:
    """The smallest logit that stays: of the `top_k` likeliest, the fewest whose probabilities make up `top_p`."""
    descending = -jnp.sort(-logits, axis=-1)
    kept = jnp.where(top_k > 0, top_k, logits.shape[-1])
    probabilities = jax.nn.softmax(jnp.where(jnp.arange(logits.shape[-1]) < kept, descending, -jnp.inf), axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    count = ((before < top_p) & (probabilities > 0)).sum(-1, keepdims=True)
    return jnp.take_along_axis(descending, jnp.maximum(count - 1, 0), axis=-1)
