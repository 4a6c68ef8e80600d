"""The loss over the vocabulary in tiles is the plain cross-entropy, on one device and on two."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mufun_jax.config import MeshConfig
from mufun_jax.model import vocabulary
from mufun_jax.model.qwen3_decoder import look_up
from mufun_jax.model.vocabulary import tiles_of, token_losses
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.sharding.rules import sharding_context
from tests.tiny import relative_error

ROWS, TARGETS, WIDTH = 2, 40, 12


def drawn(vocabulary_size: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Hidden states, a table, targets (half of them the likeliest), and a weight of each."""
    rng = np.random.default_rng(vocabulary_size)
    hidden = 3 * rng.standard_normal((ROWS, TARGETS, WIDTH)).astype(np.float32)
    table = rng.standard_normal((WIDTH, vocabulary_size)).astype(np.float32)
    targets = rng.integers(0, vocabulary_size, (ROWS, TARGETS)).astype(np.int32)
    targets[:, ::2] = (hidden @ table).argmax(-1)[:, ::2]
    weights = rng.uniform(0, 2, (ROWS, TARGETS)).astype(np.float32)
    return jnp.asarray(hidden), jnp.asarray(table), jnp.asarray(targets), jnp.asarray(weights)


def plain(hidden, table, targets):
    logits = jnp.einsum("RTD,DV->RTV", hidden, table, precision="highest")
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return losses, (logits.argmax(-1) == targets).astype(jnp.float32)


MESHES = {"none": None, **{axis: MeshConfig(**{axis: 2}) for axis in ("data", "fsdp", "tensor", "context")}}


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("tiles", [1, 4])
def test_tiles_give_the_cross_entropy_its_gradients_and_the_accuracy(tiles, mesh, monkeypatch):
    size = 96
    monkeypatch.setattr(vocabulary, "TILE", size // tiles)
    taken = []
    monkeypatch.setattr(vocabulary, "tiles_of", lambda *sizes: taken.append(tiles_of(*sizes)) or taken[-1])
    hidden, table, targets, weights = drawn(size)

    def weighed(losses_of, hidden, table):
        losses, correct = losses_of(hidden, table, targets)
        return (losses * weights).sum(), (losses, correct)

    def tiled(hidden, table, targets):
        tokens = token_losses(hidden, table, targets)
        return tokens.losses, tokens.correct

    def with_gradients(losses_of):
        return jax.jit(jax.value_and_grad(lambda *at: weighed(losses_of, *at), (0, 1), has_aux=True))(hidden, table)

    (_, (losses, correct)), gradients = with_gradients(plain)
    config = MESHES[mesh]
    if config is None:
        (_, (our_losses, our_correct)), ours = with_gradients(tiled)
    else:
        with sharding_context(make_mesh(config)):
            (_, (our_losses, our_correct)), ours = with_gradients(tiled)
    assert taken == [tiles]
    assert relative_error(our_losses, losses) < 1e-6
    np.testing.assert_array_equal(our_correct, correct)
    assert TARGETS <= correct.sum() < ROWS * TARGETS
    for our, reference in zip(ours, gradients, strict=True):
        assert relative_error(our, reference) < 2e-6


def test_tiles_are_as_many_as_needed_and_equal():
    assert tiles_of(96, 24) == 4
    assert tiles_of(96, 25) == 4
    assert tiles_of(96, 96) == 1
    assert tiles_of(151_936, vocabulary.TILE) == 8  # Qwen3: 8 x 18,992
    assert tiles_of(97, 24) == 1  # a prime number of tokens: in one piece


def test_a_token_that_comes_often_gets_all_its_gradients_in_a_bfloat16_table():
    """3,000 ones: a sum in bfloat16 stops at 256, where one more is rounded away."""
    table = jnp.ones((5, 4), jnp.bfloat16)
    tokens = jnp.full((2, 1500), 3)
    gradient = jax.jit(jax.grad(lambda table: look_up(table, tokens).astype(jnp.float32).sum()))(table)
    assert gradient.dtype == jnp.bfloat16
    assert np.asarray(gradient, np.float32).tolist() == [[0.0] * 4] * 3 + [[3008.0] * 4] + [[0.0] * 4]
