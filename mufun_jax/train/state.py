"""The state of training: what trains, its optimizer's state and the step, born in their shardings."""

from dataclasses import replace
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.linen import meta
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.sharding.rules import tree_shardings
from mufun_jax.train.lora import abstract_adapters, init_adapters, merge
from mufun_jax.train.optimizer import make_optimizer
from mufun_jax.weights.params import Params, abstract_params

LORA = "lora"  # the adapters, among what trains


Saved = dict[str, Any]  # of a checkpoint: "step", "weights" and "frozen" in float32, "opt_state"


@flax.struct.dataclass
class TrainState:
    """What a train step maps to what it becomes (or the shardings of that). `step` counts within the stage."""

    step: Any  # an int32 scalar
    trained: Any  # parameters of the parts that train, and "lora"
    precise: Any  # `trained` in float32 where its dtype is another, else None
    opt_state: optax.OptState

    @property
    def weights(self) -> Params:
        """What trains, in float32."""
        return self.trained if self.precise is None else self.precise


def split_params(params: Params, trained: tuple[str, ...]) -> tuple[Params, Params]:
    """Trained and frozen parts of a parameter tree."""
    return (
        {part: tree for part, tree in params.items() if part in trained},
        {part: tree for part, tree in params.items() if part not in trained},
    )


def start_stage(run: RunConfig, stage: StageConfig, params: Params, mesh: Mesh, seed: int) -> TrainState:
    """Step 0 of a stage: the parts of `params` (float32) that train, fresh adapters, and their optimizer state."""
    trained, _ = split_params(params, stage.trained_parts)
    if stage.adapted_parts:
        trained[LORA] = init_adapters(run.model, run.lora, stage.adapted_parts, mesh, seed)
    optimizer = make_optimizer(run.optimizer)
    shardings = opt_state_shardings(optimizer, trained, mesh)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(trained)
    step = jax.device_put(jnp.zeros((), jnp.int32), NamedSharding(mesh, PartitionSpec()))
    if run.param_dtype == "float32":
        return TrainState(step, trained, None, opt_state)
    return TrainState(step, cast(trained, run.param_dtype), trained, opt_state)


def abstract_state(run: RunConfig, stage: StageConfig, mesh: Mesh) -> tuple[TrainState, Params]:
    """The state at the start of a stage and its frozen parts, as shapes in their shardings."""
    whole = with_shardings(meta.unbox(abstract_params(run.model)), tree_shardings(abstract_params(run.model), mesh))
    trained, frozen = split_params(whole, stage.trained_parts)
    if stage.adapted_parts:
        adapters = abstract_adapters(run.model, run.lora, stage.adapted_parts)
        trained[LORA] = with_shardings(meta.unbox(adapters), tree_shardings(adapters, mesh))
    optimizer = make_optimizer(run.optimizer)
    opt_state = jax.eval_shape(optimizer.init, trained)
    opt_state = with_shardings(opt_state, opt_state_shardings(optimizer, trained, mesh))
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec()))
    frozen = _shapes_as(frozen, run.compute_dtype)
    if run.param_dtype == "float32":
        return TrainState(step, trained, None, opt_state), frozen
    return TrainState(step, _shapes_as(trained, run.param_dtype), trained, opt_state), frozen


def abstract_saved(run: RunConfig, stage: StageConfig, mesh: Mesh) -> Saved:
    """What a checkpoint of a stage holds, as shapes in their shardings."""
    state, frozen = abstract_state(replace(run, param_dtype="float32", compute_dtype="float32"), stage, mesh)
    return to_save(state, frozen)


def precise_and_in_use(frozen: Params, dtype: str) -> tuple[Params, Params]:
    """Frozen parts as they are kept, float32 in the host's memory, and as the step takes them, in `dtype`.

    The devices hold the second only. Where the devices are the host (a CPU) or the dtype is the same, nothing moves.
    """
    if dtype == "float32":
        return frozen, frozen
    in_use = cast(frozen, dtype)
    return jax.tree.map(_on_host, frozen), in_use


def _on_host(leaf: jax.Array) -> jax.Array:
    kinds = {memory.kind for memory in _device_of(leaf).addressable_memories()}
    return jax.device_put(leaf, leaf.sharding.with_memory_kind("pinned_host")) if "pinned_host" in kinds else leaf


def _on_devices(leaf: jax.Array) -> jax.Array:
    return jax.device_put(leaf, leaf.sharding.with_memory_kind(_device_of(leaf).default_memory().kind))


def _device_of(leaf: jax.Array) -> Any:
    return leaf.addressable_shards[0].device


def finish_stage(run: RunConfig, state: TrainState, frozen: Params) -> Params:
    """All parameters after a stage, float32: what trained, and `frozen` as it was, adapters merged into it."""
    trained = dict(state.weights)
    adapters = trained.pop(LORA, {})
    return {**merge(jax.tree.map(_on_devices, frozen), adapters, run.lora), **trained}


def to_save(state: TrainState, frozen: Params) -> Saved:
    """What a checkpoint holds: the same whatever the dtype of parameters in training."""
    return {"step": state.step, "weights": state.weights, "opt_state": state.opt_state, "frozen": frozen}


def from_saved(saved: Saved, param_dtype: str) -> tuple[TrainState, Params]:
    """State and frozen parts as they were, for training in a dtype."""
    weights = saved["weights"]
    if param_dtype == "float32":
        return TrainState(saved["step"], weights, None, saved["opt_state"]), saved["frozen"]
    return TrainState(saved["step"], cast(weights, param_dtype), weights, saved["opt_state"]), saved["frozen"]


def cast(params: Params, dtype: str) -> Params:
    """Parameters in another dtype, each shard where it lies."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    return jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf.astype(dtype), tree), out_shardings=shardings)(params)


def opt_state_shardings(optimizer: optax.GradientTransformation, trained: Params, mesh: Mesh) -> optax.OptState:
    """Each moment lies as its parameter does; counts are everywhere."""
    return optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, trained),
        jax.tree.map(lambda leaf: leaf.sharding, trained),
        transform_non_params=lambda _: NamedSharding(mesh, PartitionSpec()),
    )


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """A tree of shapes, each in its sharding."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding), shapes, shardings
    )


def _shapes_as(shapes: Params, dtype: str) -> Params:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype), sharding=leaf.sharding), shapes)
