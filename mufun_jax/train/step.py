"""One training step: a pure function of (state, frozen parts, batch, learning rate)."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from mufun_jax import axes
from mufun_jax.batch import Batch
from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.model.compute import Compute, Kernel, kernel_for
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.model.placement import constrain
from mufun_jax.model.vocabulary import TokenLosses
from mufun_jax.sharding.rules import batch_shardings
from mufun_jax.train.lora import scaled
from mufun_jax.train.loss import Sums, weighted_sums
from mufun_jax.train.optimizer import make_optimizer
from mufun_jax.train.state import LORA, TrainState
from mufun_jax.weights.params import Params

# To XLA: weights are gathered while the products before them run. Off by default; without, nothing overlaps.
_TPU_OPTIONS = {
    "xla_enable_async_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
}
Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, Params, Batch, Any], tuple[TrainState, Metrics]]


def make_train_step(run: RunConfig, stage: StageConfig, platform: str) -> TrainStep:
    """The step of a stage: (state, frozen, batch, learning rate) to (state, metrics).

    Frozen parts are constants to it: no gradient, no optimizer state, no backward pass below them. `platform` is that
    of the devices, "tpu", "gpu" or "cpu".
    """
    losses = make_losses(run, stage, platform)
    optimizer = make_optimizer(run.optimizer)
    sets = most_sets(run)

    def summed_losses(trained: Params, frozen: Params, part: Batch) -> tuple[jax.Array, Sums]:
        tokens = losses(trained, frozen, part)
        return weighted_sums(tokens, part.target_weights, part.target_set, sets)

    def train_step(
        state: TrainState, frozen: Params, batch: Batch, learning_rate: Float[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        (loss, sums), gradients = accumulate(summed_losses, state.trained, frozen, batch, stage.accumulate)
        weight = jnp.maximum(batch.target_weights.sum(), 1.0)
        gradients = jax.tree.map(lambda gradient: gradient.astype(jnp.float32) / weight, gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.weights)
        weights = jax.tree.map(lambda param, update: param - learning_rate * update, state.weights, updates)
        metrics = {
            "loss": loss / weight,
            "gradient_norm": optax.tree.norm(gradients),
            "learning_rate": learning_rate,
            "positions": (batch.segment_ids > 0).sum(),
            "positions_used": (batch.segment_ids > 0).mean(),
            "windows_used": batch.window_mask.mean(),
            "target_tokens": batch.target_weights.sum(),
            "token_accuracy": sums.correct / weight,
            "set_losses": sums.set_losses,
            "set_targets": sums.set_targets,
        }
        metrics |= {f"gradient_norm_{part}": optax.tree.norm(of_part) for part, of_part in gradients.items()}
        if state.precise is None:
            return TrainState(state.step + 1, weights, None, opt_state), metrics
        trained = jax.tree.map(lambda old, new: new.astype(old.dtype), state.trained, weights)
        return TrainState(state.step + 1, trained, weights, opt_state), metrics

    return train_step


def make_losses(run: RunConfig, stage: StageConfig, platform: str) -> Callable[[Params, Params, Batch], TokenLosses]:
    """The forward pass of a stage: (what trains, frozen, batch) to the losses at the batch's targets."""
    kernel = kernel_for(platform) if run.attention == "auto" else cast(Kernel, run.attention)
    model = MuFunModel(run.model, Compute(jnp.dtype(run.compute_dtype).type, stage.remat, kernel, run.ring))

    def losses(trained: Params, frozen: Params, batch: Batch) -> TokenLosses:
        trained = dict(trained)
        adapters = scaled(trained.pop(LORA, {}), run.lora)
        variables = {"params": {**frozen, **trained}, "lora": adapters}
        return cast(TokenLosses, model.apply(variables, batch, method=MuFunModel.losses))

    return losses


def most_sets(run: RunConfig) -> int:
    """Sets of the largest mixture of a run: for so many a step sums the losses, so that stages can share a program."""
    return max(len(run.stages[name].mixture) for name in run.curriculum)


def accumulate(
    summed_losses: Callable[[Params, Params, Batch], tuple[jax.Array, Any]],
    trained: Params,
    frozen: Params,
    batch: Batch,
    parts: int,
) -> tuple[tuple[jax.Array, Any], Params]:
    """Sums over the batch and their gradients, taken in `parts` of its rows one after the other: the same step.

    Each part has rows of every device: row r is in part r modulo `parts`.
    """
    summed = jax.value_and_grad(summed_losses, has_aux=True)
    if parts == 1:
        return summed(trained, frozen, batch)

    def of_parts(leaf: jax.Array) -> jax.Array:
        rows = leaf.reshape(leaf.shape[0] // parts, parts, *leaf.shape[1:])
        return jnp.moveaxis(constrain(rows, axes.ROWS, *[None] * leaf.ndim), 1, 0)

    def add(sums, part: Batch):
        return jax.tree.map(
            lambda total, new: total + new.astype(total.dtype), sums, summed(trained, frozen, part)
        ), None

    in_parts = jax.tree.map(of_parts, batch)
    sums = jax.eval_shape(summed_losses, trained, frozen, jax.tree.map(lambda leaf: leaf[0], in_parts))
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), (sums, trained))
    return jax.lax.scan(add, start, in_parts)[0]


def compile_train_step(step: TrainStep, state: TrainState, frozen: Params, mesh: Mesh) -> jax.stages.Wrapped:
    """The step under jit: all stay in their shardings, the old state's memory is reused."""
    state_shardings, frozen_shardings = jax.tree.map(lambda leaf: leaf.sharding, (state, frozen))
    return jax.jit(
        step,
        in_shardings=(state_shardings, frozen_shardings, batch_shardings(mesh), None),
        out_shardings=(state_shardings, NamedSharding(mesh, PartitionSpec())),
        donate_argnums=0,
        compiler_options=_TPU_OPTIONS if mesh.devices.flat[0].platform == "tpu" else None,
    )
