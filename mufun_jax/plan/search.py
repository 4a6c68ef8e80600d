"""Trying meshes, rematerialisation policies and batch sizes: the best few, or the nearest that fits."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import jax
from pydantic import ValidationError

from mufun_jax.errors import ConfigError
from mufun_jax.model.flops import train_flops
from mufun_jax.plan.estimate import MATMUL_EFFICIENCY
from mufun_jax.plan.memory import least_bytes
from mufun_jax.plan.plan import Plan, Request, make_plan
from mufun_jax.plan.topology import Topology, nearest_mesh, parse_topology, slice_shapes
from mufun_jax.plan.variant import LEAST_MEMORY_FIRST, Variant, meshes, with_variant
from mufun_jax.weights.params import abstract_params

Advance = Callable[..., None]
# Forward passes that a step costs.
_RECOMPUTED = {"none": 3.0, "save_dots": 3.1, "save_attention": 3.9, "layer": 4.0, "offload": 4.0}
_LARGEST_ROWS = 8  # times the smallest batch, one row for each of data x fsdp


@dataclass(frozen=True)
class Found:
    """The plans that were compiled, best first: those that fit by predicted MFU, then the others by memory."""

    plans: tuple[Plan, ...]
    candidates: int
    pruned: int  # that cannot fit, by their state and what the backward pass must keep

    @property
    def best(self) -> Plan | None:
        return self.plans[0] if self.plans and self.plans[0].fits else None


def search(request: Request, tries: int, advance: Advance) -> Found:
    """Compiles the `tries` likeliest of all variants of a train step. `advance(done, total, note)` shows progress.

    The order is by a rough time of a row: the model's FLOPs with what is recomputed, and over the links the weights
    that fsdp gathers, activations that tensor reduces, keys and values that context shares. Of each size of tensor and
    context and each policy the best comes first, then the seconds.
    """
    _only_training(request, "--search")
    params = abstract_params(request.run.model)
    candidates = list(_candidates(request))
    possible = [each for each in candidates if _least(each, params) <= request.topology.chip.memory_bytes]
    ordered = sorted(possible, key=lambda each: _rough_seconds(each, params) / each.stage.rows)
    plans = _compile(_alternating(ordered)[:tries], advance)
    plans.sort(key=lambda plan: (not plan.fits, -(plan.mfu or 0.0), plan.memory.total))
    return Found(tuple(plans), len(candidates), len(candidates) - len(possible))


def nearest_fit(plan: Plan, tries: int, advance: Advance) -> Plan | None:
    """The first of the variants nearest to a plan that fits, of at most `tries` that are compiled.

    Nearest first: a policy that keeps less, then fewer rows, then the mesh that splits most.
    """
    _only_training(plan.request, "a nearest choice")
    params = abstract_params(plan.request.run.model)
    limit = plan.request.topology.chip.memory_bytes
    possible = [each for each in _neighbours(plan.request) if _least(each, params) <= limit][:tries]
    for number, request in enumerate(possible):
        advance(number, len(possible), describe(request.variant))
        tried = make_plan(request)
        if tried.fits:
            return tried
    return None


def nearest_topology(request: Request) -> Topology | None:
    """The smallest slice of the same chip whose memory holds the state and what a backward pass must keep, with as
    many rows a device as there are; by a bound, nothing is compiled."""
    params = abstract_params(request.run.model)
    variant, topology = request.variant, request.topology
    remat = LEAST_MEMORY_FIRST[0]
    for dims in sorted(slice_shapes(topology.chip), key=prod):
        larger = replace(topology, dims=dims)
        if larger.devices <= topology.devices:
            continue
        mesh = nearest_mesh(replace(variant.mesh, data=topology.slices), larger)
        rows = mesh.data * mesh.fsdp
        changed = _changed(replace(request, topology=larger), Variant(mesh, remat, rows))
        if changed is not None and _least(changed, params) <= larger.chip.memory_bytes:
            return parse_topology(larger.name, topology.slices)
    return None


def describe(variant: Variant) -> str:
    mesh = ", ".join(f"{axis} {getattr(variant.mesh, axis)}" for axis in ("data", "fsdp", "tensor", "context"))
    return f"{mesh}; remat {variant.remat}; {variant.rows} rows"


def _alternating(ordered: list[Request]) -> list[Request]:
    """The best of each group, then the second of each, and so on: what differs little waits."""
    place: Counter[tuple[int, int, str]] = Counter()
    ranked = []
    for order, request in enumerate(ordered):
        mesh = request.variant.mesh
        group = (mesh.tensor, mesh.context, request.variant.remat)
        ranked.append((place[group], order, request))
        place[group] += 1
    return [request for _, _, request in sorted(ranked, key=lambda each: each[:2])]


def _compile(requests: list[Request], advance: Advance) -> list[Plan]:
    plans = []
    for number, request in enumerate(requests):
        advance(number, len(requests), describe(request.variant))
        plans.append(make_plan(request))
    advance(len(requests), len(requests), "")
    return plans


def _candidates(request: Request) -> Iterator[Request]:
    """All meshes x policies x rows: one row for each of data x fsdp, and powers of two times that."""
    for mesh in meshes(request.run, request.stage.positions, request.topology.devices, request.topology.slices):
        smallest, factor = mesh.data * mesh.fsdp, 1
        while factor <= _LARGEST_ROWS:
            for remat in LEAST_MEMORY_FIRST:
                changed = _changed(request, Variant(mesh, remat, smallest * factor))
                if changed is not None:
                    yield changed
            factor *= 2


def _neighbours(request: Request) -> Iterator[Request]:
    variant, tensor = request.variant, request.run.model.decoder.kv_heads
    stricter = LEAST_MEMORY_FIRST[: LEAST_MEMORY_FIRST.index(variant.remat)][::-1]
    smallest = variant.mesh.data * variant.mesh.fsdp
    rows, choices = variant.rows, [replace(variant, remat=policy) for policy in stricter]
    while rows % 2 == 0 and (rows // 2) % smallest == 0:
        rows //= 2
        choices += [replace(variant, rows=rows), *(replace(variant, rows=rows, remat=policy) for policy in stricter)]
    wide = list(meshes(request.run, request.stage.positions, request.topology.devices, request.topology.slices))
    for mesh in sorted(wide, key=lambda mesh: (mesh.tensor, mesh.data)):
        if mesh != variant.mesh and mesh.data == request.topology.slices and mesh.tensor <= tensor:
            rows = min(variant.rows, mesh.data * mesh.fsdp)
            choices.append(Variant(mesh, LEAST_MEMORY_FIRST[0], max(rows, mesh.data * mesh.fsdp)))
    for choice in choices:
        changed = _changed(request, choice)
        if changed is not None:
            yield changed


def _changed(request: Request, variant: Variant) -> Request | None:
    """The request with another variant; None where its rows do not divide over its mesh."""
    if variant.rows % (variant.mesh.data * variant.mesh.fsdp):
        return None
    try:
        return replace(request, run=with_variant(request.run, request.stage_name, variant))
    except ValidationError:  # the config's own checks refuse it
        return None


def _least(request: Request, params: Any) -> int:
    return least_bytes(request.run, request.stage, request.variant.remat, params)


def _rough_seconds(request: Request, params: Any) -> float:
    """A step's time from the model's sizes alone, to order what is compiled."""
    topology, variant, model = request.topology, request.variant, request.run.model
    chip, mesh = topology.chip, variant.mesh
    rate = topology.devices * chip.peak_flops * MATMUL_EFFICIENCY
    computing = train_flops(model, request.stage).total / 3 * _RECOMPUTED[variant.remat] / rate
    weights = sum(leaf.size for leaf in jax.tree.leaves(params)) * 2
    links = chip.link_bandwidth * 2 * chip.torus_dims
    gathered = 3 * weights / mesh.tensor / links if mesh.fsdp > 1 else 0.0
    across = 2 * weights / mesh.tensor / mesh.fsdp / chip.network_bandwidth if topology.slices > 1 else 0.0
    rows = request.stage.rows / (mesh.data * mesh.fsdp)
    activation = rows * request.stage.positions / mesh.context * model.decoder.width * 2
    reduced = 12 * model.decoder.layers * activation / (2 * chip.link_bandwidth) if mesh.tensor > 1 else 0.0
    decoder = model.decoder
    keys_and_values = 2 * decoder.layers * decoder.kv_heads * decoder.head_size / mesh.tensor
    shared = 3 * rows * request.stage.positions * keys_and_values * 2 / links if mesh.context > 1 else 0.0
    return max(computing, gathered) + reduced + shared + across


def _only_training(request: Request, what: str) -> None:
    if request.program != "train":
        raise ConfigError(f"{what} is for --program train, not {request.program}: set mesh and --rows yourself")
