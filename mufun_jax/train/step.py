"""One training step: a pure function of (state, batch)."""

from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from mufun_jax.batch import Batch
from mufun_jax.config import RunConfig
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.rules import batch_shardings
from mufun_jax.train.loss import masked_cross_entropy
from mufun_jax.train.optimizer import make_optimizer
from mufun_jax.train.state import TrainState, split_params

Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics]]


def make_train_step(run: RunConfig, trained_parts: tuple[str, ...]) -> TrainStep:
    """The step in which `trained_parts` train: (state, batch, learning rate) to (state, metrics).

    Frozen parts are constants to it: no gradient, no optimizer state, no backward pass below them.
    """
    model = MuFunModel(run.model, jnp.dtype(run.compute_dtype).type, run.rematerialize)
    optimizer = make_optimizer(run.optimizer)

    def train_step(state: TrainState, batch: Batch, learning_rate: Float[Array, ""]) -> tuple[TrainState, Metrics]:
        trained, frozen = split_params(state.params, trained_parts)

        def loss_of(trained):
            logits = cast(jax.Array, model.apply({"params": {**frozen, **trained}}, batch))
            return masked_cross_entropy(logits, batch.targets, batch.target_weights)

        (loss, counts), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained)
        updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
        trained = jax.tree.map(lambda param, update: param - learning_rate * update, trained, updates)
        metrics = {
            "loss": loss,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": learning_rate,
            "positions_used": (batch.segment_ids > 0).mean(),
            "windows_used": batch.window_mask.mean(),
            **counts,
        }
        return TrainState(state.step + 1, {**frozen, **trained}, opt_state), metrics

    return train_step


def compile_train_step(step: TrainStep, state: TrainState, mesh: Mesh) -> TrainStep:
    """The step under jit: state and batch stay in their shardings, the old state's memory is reused."""
    state_shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(
        step,
        in_shardings=(state_shardings, batch_shardings(mesh), None),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
