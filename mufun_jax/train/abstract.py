"""The train step for devices that need not be there: state and batch as shapes in their shardings."""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mufun_jax.batch import Batch
from mufun_jax.config import ModelConfig, RunConfig, StageConfig
from mufun_jax.sharding.rules import batch_shardings, sharding_context
from mufun_jax.train.state import abstract_state, with_shardings
from mufun_jax.train.step import compile_train_step, make_train_step


def lower_train_step(run: RunConfig, stage: StageConfig, mesh: Mesh) -> jax.stages.Lowered:
    """The real train step of a stage, lowered for the devices of `mesh`; `.compile()` gives its program."""
    state, frozen = abstract_state(run, stage, mesh)
    with sharding_context(mesh):
        step = make_train_step(run, stage, mesh.devices.flat[0].platform)
        compiled = compile_train_step(step, state, frozen, mesh)
        return compiled.lower(
            state, frozen, abstract_batch(run.model, stage, mesh), jax.ShapeDtypeStruct((), jnp.float32)
        )


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
        target_set=by_target,
    )
    return with_shardings(batch, batch_shardings(mesh))
