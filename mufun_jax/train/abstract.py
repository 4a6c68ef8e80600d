"""The train step for devices that need not be there: state and batch as shapes in their shardings."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import meta
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax.batch import Batch
from mufun_jax.config import ModelConfig, RunConfig, StageConfig
from mufun_jax.sharding.rules import batch_shardings, sharding_context
from mufun_jax.train.optimizer import make_optimizer
from mufun_jax.train.state import TrainState, opt_state_shardings, split_params
from mufun_jax.train.step import compile_train_step, make_train_step
from mufun_jax.weights.params import abstract_params, param_shardings


def lower_train_step(run: RunConfig, stage: StageConfig, mesh: Mesh) -> jax.stages.Lowered:
    """The real train step of a stage, lowered for the devices of `mesh`; `.compile()` gives its program."""
    state = abstract_state(run, stage, mesh)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    with sharding_context(mesh):
        step = compile_train_step(make_train_step(run, stage.trained_parts), state, mesh)
        return step.lower(state, abstract_batch(run.model, stage, mesh), scalar)


def abstract_state(run: RunConfig, stage: StageConfig, mesh: Mesh) -> TrainState:
    """The state at the start of a stage."""
    optimizer = make_optimizer(run.optimizer)
    params = with_shardings(meta.unbox(abstract_params(run.model)), param_shardings(run.model, mesh))
    trained, _ = split_params(params, stage.trained_parts)
    opt_state = jax.eval_shape(optimizer.init, trained)
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    return TrainState(step, params, with_shardings(opt_state, opt_state_shardings(optimizer, trained, mesh)))


def abstract_batch(model: ModelConfig, stage: StageConfig, mesh: Mesh) -> Batch:
    """A batch of a stage."""
    R, L, W, T = stage.rows, stage.positions, stage.windows, stage.targets
    by_position, by_target = jax.ShapeDtypeStruct((R, L), jnp.int32), jax.ShapeDtypeStruct((R, T), jnp.int32)
    batch = Batch(
        tokens=by_position,
        audio_slot=by_position,
        positions=by_position,
        segment_ids=by_position,
        samples=jax.ShapeDtypeStruct((R, W, model.encoder.window_samples), jnp.int16),
        window_mask=jax.ShapeDtypeStruct((R, W), jnp.bool_),
        target_index=by_target,
        targets=by_target,
        target_weights=jax.ShapeDtypeStruct((R, T), jnp.float32),
    )
    return with_shardings(batch, batch_shardings(mesh))


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """A tree of shapes, each in its sharding."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes, shardings
    )
