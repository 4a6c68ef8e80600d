"""The training loss: cross-entropy at target positions."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def masked_cross_entropy(
    logits: Float[Array, "R T V"], targets: Int[Array, "R T"], weights: Float[Array, "R T"]
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """Mean negative log-likelihood (nats a target token) and counts of what it is a mean of.

    Every target token of the global batch counts the same, wherever its row lies.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)
    total = weights.sum()
    loss = (losses * weights).sum() / jnp.maximum(total, 1.0)
    correct = ((logits.argmax(-1) == targets) * weights).sum() / jnp.maximum(total, 1.0)
    return loss, {"target_tokens": total, "token_accuracy": correct}
