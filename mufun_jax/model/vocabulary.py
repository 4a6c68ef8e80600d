"""The loss over the vocabulary, a tile of it at a time: [targets x vocabulary] logits never exist together.

For each tile the part of the projection is gathered, logits are made of it, and the sums of the softmax go on. The
backward pass does the same once more; so the gradient of a tile is scattered before the next one is made.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mufun_jax import axes
from mufun_jax.model.placement import project

TILE = 20_000  # columns of the vocabulary, at most


@flax.struct.dataclass
class TokenLosses:
    """Of each target: its negative log-likelihood in nats, float32, and whether it is the likeliest token."""

    losses: Float[Array, "R T"]
    correct: Float[Array, "R T"]


def tiles_of(vocabulary: int, largest: int) -> int:
    """The smallest number of equal tiles of at most `largest` columns; if none of up to 64 fits, one."""
    fitting = (tiles for tiles in range(1, 65) if vocabulary % tiles == 0 and vocabulary // tiles <= largest)
    return next(fitting, 1)


def token_losses(hidden: Float[Array, "R T D"], table: Float[Array, "D V"], targets: Int[Array, "R T"]) -> TokenLosses:
    """Cross-entropy of `targets` under softmax(hidden table), logits and sums in float32."""
    width, vocabulary = table.shape
    tiles = tiles_of(vocabulary, TILE)
    # Tile t has the tokens t, t + tiles, t + 2 tiles, …: so each is split over the mesh as the table is.
    tiled = jnp.moveaxis(table.reshape(width, vocabulary // tiles, tiles), 2, 0)

    @jax.checkpoint
    def one_tile(carry, tile):
        highest, total, chosen, best = carry
        number, part = tile
        logits = project(hidden, part, (axes.ROWS, axes.TARGETS), (axes.EMBED, axes.VOCAB), 1).astype(jnp.float32)
        top = jax.lax.stop_gradient(logits.max(-1))
        new_highest = jnp.maximum(highest, top)
        total = total * jnp.exp(highest - new_highest) + jnp.exp(logits - new_highest[..., None]).sum(-1)
        column = jnp.where(targets % tiles == number, targets // tiles, -1)
        chosen = chosen + jnp.where(jnp.arange(logits.shape[-1]) == column[..., None], logits, 0.0).sum(-1)
        best = jnp.where(top > highest, logits.argmax(-1) * tiles + number, best)
        return (new_highest, total, chosen, best), None

    zeros = jnp.zeros(targets.shape, jnp.float32)
    start = (jnp.full(targets.shape, -jnp.inf), zeros, zeros, jnp.zeros(targets.shape, jnp.int32))
    (highest, total, chosen, best), _ = jax.lax.scan(one_tile, start, (jnp.arange(tiles), tiled))
    return TokenLosses(highest + jnp.log(total) - chosen, (best == targets).astype(jnp.float32))
