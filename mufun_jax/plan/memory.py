"""Memory of one chip: what the compiler says a program holds, and a quick bound below it for pruning a search."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mufun_jax.axes import MESH_AXES
from mufun_jax.config import ModelConfig, OptimizerConfig, RunConfig, StageConfig
from mufun_jax.sharding.chips import GIB
from mufun_jax.sharding.rules import partition_spec
from mufun_jax.train.optimizer import make_optimizer

_TOO_LARGE = (
    re.compile(r"required for [^(]*\(([\d.]+)([KMG])\) exceeds available HBM"),
    re.compile(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm"),
)
_UNIT = {"K": 2**10, "M": 2**20, "G": GIB}


@dataclass(frozen=True)
class Memory:
    """Bytes of one chip. `activations` is all that the program holds for itself while it runs, gradients included."""

    limit: int
    parameters: int
    optimizer: int
    inputs: int  # batch or cache, and what padding to tiles adds to all arguments
    activations: int
    outputs: int  # that reuse no argument's memory
    code: int

    @property
    def total(self) -> int:
        return self.parameters + self.optimizer + self.inputs + self.activations + self.outputs + self.code

    @property
    def headroom(self) -> int:
        return self.limit - self.total

    @property
    def fits(self) -> bool:
        return self.headroom >= 0


def memory_of(compiled: jax.stages.Compiled, parameters: int, optimizer: int, inputs: int, limit: int) -> Memory:
    """What a compiled program holds on each chip; of its arguments, so many bytes are parameters, optimizer and inputs.

    Parameters that the program does not use, the encoder's in decoding, are held all the same.
    """
    stats = compiled.memory_analysis()
    assert stats is not None, "the compiler did not say how much memory its program takes"
    return Memory(
        limit,
        parameters,
        optimizer,
        inputs=max(inputs, stats.argument_size_in_bytes - parameters - optimizer),
        activations=stats.temp_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


def memory_refused(message: str, parameters: int, optimizer: int, inputs: int, limit: int) -> Memory | None:
    """What a program would have held that the compiler refused as too large; None for another error's message."""
    for pattern in _TOO_LARGE:
        if found := pattern.search(message):
            needed = int(float(found[1]) * _UNIT[found[2]])
            activations = max(0, needed - parameters - optimizer - inputs)
            return Memory(limit, parameters, optimizer, inputs, activations, 0, 0)
    return None


def bytes_per_device(tree: Any) -> int:
    """Bytes of a tree of shapes on each device, by its shardings."""
    return sum(
        prod(leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def least_bytes(run: RunConfig, stage: StageConfig, remat: str, params: Any) -> int:
    """A bound below what one chip holds in training: state, gradients, and what the backward pass is sure to need.

    `params` are the model's abstract parameters, in their boxes.
    """
    sizes: dict[str, int] = dict(zip(MESH_AXES, run.mesh.shape, strict=True))
    state = 0.0
    for part, tree in params.items():
        copies = 2 + state_ratio(run.optimizer) if part in stage.trained_parts else 1  # with gradients
        state += copies * _sharded_bytes(part, tree, sizes)
    model = run.model
    positions = stage.rows / (sizes["data"] * sizes["fsdp"]) * stage.positions / sizes["context"]
    saved = positions * model.decoder.layers * _kept_of_layer(model, remat)
    if "encoder" in stage.trained_parts:
        frames = stage.rows * stage.windows / prod(sizes.values()) * model.encoder.frames
        encoder = model.encoder
        products = 6 * encoder.width + encoder.mlp_width
        kept = {"none": products, "save_dots": products, "offload": 0}.get(remat, encoder.width)
        saved += frames * encoder.layers * kept
    return int(state + saved * jnp.dtype(run.compute_dtype).itemsize)


def _kept_of_layer(model: ModelConfig, remat: str) -> int:
    """Numbers of each position that the backward pass must have of a decoder's layer: its input; where
    products are kept, what they give (or, as many numbers, take) as well."""
    decoder = model.decoder
    heads = 2 * (decoder.heads + decoder.kv_heads) * decoder.head_size
    products = 2 * decoder.width + heads + 2 * decoder.mlp_width
    return {"none": products, "save_dots": products, "offload": 0}.get(remat, decoder.width)


@lru_cache
def state_ratio(config: OptimizerConfig) -> float:
    """Bytes of optimizer state to one byte of the parameters that it is for."""
    weights = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    state = jax.eval_shape(make_optimizer(config).init, {"weights": weights})
    moments = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    return sum(leaf.size * leaf.dtype.itemsize for leaf in moments) / (weights.size * 4)


def _sharded_bytes(part: str, tree: Any, sizes: Mapping[str, int]) -> float:
    total = 0.0
    for leaf in jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)):
        spec = partition_spec(leaf.names, part)
        devices = prod(sizes[axis] for axes in spec if axes for axis in ([axes] if isinstance(axes, str) else axes))
        total += leaf.value.size * leaf.value.dtype.itemsize / devices
    return total
