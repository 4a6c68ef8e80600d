"""The training loss: cross-entropy at target positions."""

import flax.struct
import jax
from jaxtyping import Array, Float, Int

from mufun_jax.model.vocabulary import TokenLosses


@flax.struct.dataclass
class Sums:
    """Beside the loss, over the targets, each times its weight: those whose token was the likeliest, and of each set of
    the mixture the losses (nats) and the weights."""

    correct: Float[Array, ""]
    set_losses: Float[Array, " sets"]
    set_targets: Float[Array, " sets"]


def weighted_sums(
    tokens: TokenLosses, weights: Float[Array, "R T"], target_set: Int[Array, "R T"], sets: int
) -> tuple[Float[Array, ""], Sums]:
    """The sum over the targets of their losses (nats), each times its weight; and what is told beside it.

    Divided by the sum of all weights of the global batch they are the loss and the accuracy: every target token counts
    the same, wherever its row lies and however the rows are parted.
    """
    losses, correct = tokens.losses * weights, jax.lax.stop_gradient(tokens.correct * weights)
    of_set = jax.nn.one_hot(target_set, sets, dtype=weights.dtype)  # [R, T, sets]
    set_losses, set_targets = (
        jax.lax.stop_gradient(values[..., None] * of_set).sum((0, 1)) for values in (losses, weights)
    )
    return losses.sum(), Sums(correct.sum(), set_losses, set_targets)
