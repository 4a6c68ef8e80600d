"""The choices that a plan may change: mesh, rematerialisation and rows. All that depends on their fields is here."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, get_args, get_type_hints

from mufun_jax.config import MeshConfig, RunConfig, StageConfig

# Least memory first; what a config knows of them is tried.
_LEAST_MEMORY_FIRST = ("offload", "layer", "save_attention", "none")


@dataclass(frozen=True)
class Variant:
    """One choice of mesh, rematerialisation policy and rows of the global batch."""

    mesh: MeshConfig
    remat: str
    rows: int

    def settings(self, stage: str) -> str:
        """As `--set` options."""
        field = _remat_field()
        value = {"layer": "True", "none": "False"}[self.remat] if field == "rematerialize" else self.remat
        place = f"stages.{stage}.{field}" if _in_stage(field) else field
        mesh = " ".join(
            f"--set mesh.{axis}={getattr(self.mesh, axis)}" for axis in ("data", "fsdp", "tensor", "context")
        )
        return f"{mesh} --set {place}={value} --set stages.{stage}.rows={self.rows}"


def variant_of(run: RunConfig, stage_name: str) -> Variant:
    """What a config says."""
    stage = run.stages[stage_name]
    field = _remat_field()
    value = getattr(stage if _in_stage(field) else run, field)
    remat = {True: "layer", False: "none"}[value] if isinstance(value, bool) else value
    return Variant(replace(run.mesh, simulated_devices=0), remat, stage.rows)


def with_variant(run: RunConfig, stage_name: str, variant: Variant) -> RunConfig:
    """The run with one stage, changed as the variant says. Raises ValueError where rows do not divide over the mesh."""
    field = _remat_field()
    value: Any = variant.remat == "layer" if field == "rematerialize" else variant.remat
    stage_changes: dict[str, Any] = {"rows": variant.rows}
    run_changes: dict[str, Any] = {"mesh": variant.mesh, "curriculum": (stage_name,)}
    (stage_changes if _in_stage(field) else run_changes)[field] = value
    stage = replace(run.stages[stage_name], **stage_changes)
    return replace(run, stages={stage_name: stage}, **run_changes)


def policies() -> tuple[str, ...]:
    """Rematerialisation policies, least memory first."""
    field = _remat_field()
    if field == "rematerialize":
        return ("layer", "none")
    known = get_args(get_type_hints(StageConfig if _in_stage(field) else RunConfig)[field])
    return tuple(policy for policy in _LEAST_MEMORY_FIRST if policy in known)


def meshes(run: RunConfig, devices: int, slices: int) -> Iterator[MeshConfig]:
    """Meshes of so many devices whose axes the model divides over: key/value heads over tensor, positions whole."""
    in_slice = devices // slices
    for tensor in _divisors(in_slice):
        if run.model.decoder.kv_heads % tensor or tensor > 8:
            continue
        for data in _divisors(in_slice // tensor):
            yield MeshConfig(data=data * slices, fsdp=in_slice // tensor // data, tensor=tensor)


def _remat_field() -> str:
    names = {field.name for config in (StageConfig, RunConfig) for field in fields(config)}
    return "remat" if "remat" in names else "rematerialize"


def _in_stage(field: str) -> bool:
    return field in {each.name for each in fields(StageConfig)}


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
