"""The choices that a plan may change: mesh, rematerialisation and rows. All that depends on their fields is here."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from mufun_jax.config import MeshConfig, Remat, RunConfig

_LEAST_POSITIONS = 2048  # of a row on each device, where context splits it
LEAST_MEMORY_FIRST = ("offload", "layer", "save_attention", "save_dots", "none")


@dataclass(frozen=True)
class Variant:
    """One choice of mesh, rematerialisation policy and rows of the global batch."""

    mesh: MeshConfig
    remat: Remat
    rows: int

    def settings(self, stage: str) -> str:
        """As `--set` options."""
        mesh = " ".join(
            f"--set mesh.{axis}={getattr(self.mesh, axis)}" for axis in ("data", "fsdp", "tensor", "context")
        )
        return f"{mesh} --set stages.{stage}.remat={self.remat} --set stages.{stage}.rows={self.rows}"


def variant_of(run: RunConfig, stage_name: str) -> Variant:
    """What a config says."""
    stage = run.stages[stage_name]
    return Variant(replace(run.mesh, simulated_devices=0), stage.remat, stage.rows)


def with_variant(run: RunConfig, stage_name: str, variant: Variant) -> RunConfig:
    """The run with one stage, changed as the variant says. Raises ValueError where rows do not divide over the mesh."""
    stage = replace(run.stages[stage_name], rows=variant.rows, remat=variant.remat)
    return replace(run, stages={stage_name: stage}, mesh=variant.mesh, curriculum=(stage_name,))


def meshes(run: RunConfig, positions: int, devices: int, slices: int) -> Iterator[MeshConfig]:
    """Meshes of so many devices whose axes the model divides over: key/value heads over tensor, and over context
    sequences of which each device still has thousands of positions."""
    in_slice = devices // slices
    for tensor, context in product(_divisors(in_slice), repeat=2):
        if run.model.decoder.kv_heads % tensor or tensor > 8 or in_slice % (tensor * context):
            continue
        if context > max(1, positions // _LEAST_POSITIONS):
            continue
        rows = in_slice // tensor // context
        for data in _divisors(rows):
            yield MeshConfig(data=data * slices, fsdp=rows // data, tensor=tensor, context=context)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
