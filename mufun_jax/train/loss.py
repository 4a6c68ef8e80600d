"""The training loss: cross-entropy at target positions."""

import jax
from jaxtyping import Array, Float

from mufun_jax.model.vocabulary import TokenLosses


def weighted_sums(tokens: TokenLosses, weights: Float[Array, "R T"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sums over the targets, each times its weight: of the losses (nats), and of the tokens that are likeliest.

    Divided by the sum of all weights of the global batch they are the loss and the accuracy: every target token counts
    the same, wherever its row lies and however the rows are parted.
    """
    return (tokens.losses * weights).sum(), (jax.lax.stop_gradient(tokens.correct) * weights).sum()
