"""A plan as tables and as one JSON object."""

from typing import Any

from rich import box
from rich.table import Table

from mufun_jax.plan.estimate import ATTENTION_EFFICIENCY, MATMUL_EFFICIENCY, MEMORY_EFFICIENCY, Estimate, RegionTime
from mufun_jax.plan.plan import Plan
from mufun_jax.plan.search import Found, describe, nearest_topology
from mufun_jax.sharding.chips import GIB

_LONGEST_LIST = 12  # regions that a table shows, the slowest


def plan_report(plan: Plan) -> list[Table | str]:
    """Tables of memory, work and time, and the lines below them."""
    times = [] if plan.prediction is None else [time_table(plan.prediction)]
    return [heading(plan), memory_table(plan), work_table(plan), *times, *summary(plan)]


def heading(plan: Plan) -> str:
    """What was compiled, for what."""
    request = plan.request
    slices = f"{request.topology.slices} x " if request.topology.slices > 1 else ""
    what = f"{request.stage_name}, {request.program}, {slices}{request.topology.name}, {describe(request.variant)}"
    if request.program != "train":
        what = f"{what.rsplit(';', 2)[0]}; {request.weights}; {request.rows} rows"
    return f"{what}; {plan.parameters:,} parameters; compiled in {plan.compile_seconds:.0f} s"


def search_report(found: Found) -> list[Table | str]:
    """The table of a search, and the settings of the best."""
    counts = f"{len(found.plans)} of {found.candidates} were compiled; {found.pruned} cannot fit, by their state alone"
    best = found.best
    return [
        search_table(found),
        counts,
        *([] if best is None else [f"Best: {best.request.variant.settings(best.request.stage_name)}"]),
    ]


def search_json(found: Found) -> dict[str, Any]:
    """The object that `mufun plan --search --json` prints: the plans, best first."""
    return {"candidates": found.candidates, "pruned": found.pruned, "plans": [plan_json(each) for each in found.plans]}


def plan_json(plan: Plan) -> dict[str, Any]:
    """The object that `mufun plan --json` prints. Bytes and FLOPs are whole numbers, times are seconds.

    What needs a compiled program is null where the compiler refused it as too large.
    """
    request, memory = plan.request, plan.memory
    topology, variant = request.topology, request.variant
    program, prediction = plan.program, plan.prediction
    total = prediction.total if prediction else None
    return {
        "fits": plan.fits,
        "program": request.program,
        "stage": request.stage_name,
        "topology": topology.name,
        "slices": topology.slices,
        "devices": topology.devices,
        "mesh": dict(zip(("data", "fsdp", "tensor", "context"), variant.mesh.shape, strict=True)),
        "rows": request.batch_rows,
        "remat": variant.remat if request.program == "train" else None,
        "weights": None if request.program == "train" else request.weights,
        "memory_per_chip_bytes": memory.total,
        "memory_limit_bytes": memory.limit,
        "memory": {
            "parameters": memory.parameters,
            "optimizer": memory.optimizer,
            "inputs": memory.inputs,
            "activations": memory.activations,
            "outputs": memory.outputs,
            "code": memory.code,
            "headroom": memory.headroom,
        },
        "parameters": plan.parameters,
        "model_flops_per_step": round(plan.model_flops.total),
        "model_flops": {
            part: round(getattr(plan.model_flops, part)) for part in ("encoder", "connector", "decoder", "head")
        },
        "attention_counted": "encoder full, decoder causal (half)",
        "program_flops_per_step": program.flops * topology.devices if program else None,
        "memory_traffic_per_chip_bytes": program.hbm_bytes if program else None,
        "interconnect_bytes_per_chip": _rounded(program.collective_bytes()) if program else None,
        "between_slices_bytes_per_chip": _rounded(program.collective_bytes(between_slices=True)) if program else None,
        "predicted_step_seconds": total.seconds if total else None,
        "predicted_mfu": plan.mfu,
        "limited_by": total.limit if total else None,
        "terms_seconds": _terms(total) if total else None,
        "efficiencies_assumed": {
            "matmul": MATMUL_EFFICIENCY,
            "attention": ATTENTION_EFFICIENCY,
            "memory": MEMORY_EFFICIENCY,
        },
        "regions": [
            {"name": region.name, "times": region.times, "seconds": region.seconds, **_terms(region)}
            for region in (prediction.regions if prediction else ())
        ],
        "tokens_per_second": plan.tokens_per_second,
        "songs_per_second": plan.songs_per_second,
        "not_counted": _not_counted(plan),
        "compile_seconds": plan.compile_seconds,
    }


def memory_table(plan: Plan) -> Table:
    """Memory of a chip, part by part."""
    per = "device (half a chip)" if plan.request.topology.chip.devices_per_chip == 2 else "chip"
    table = _table(f"memory of each {per}", "GiB")
    memory = plan.memory
    for part in ("parameters", "optimizer", "inputs", "activations", "outputs", "code"):
        table.add_row(part, _gib(getattr(memory, part)))
    table.add_section()
    table.add_row("needed", _gib(memory.total))
    table.add_row("there", _gib(memory.limit))
    table.add_row("headroom", _gib(memory.headroom))
    return table


def work_table(plan: Plan) -> Table:
    """FLOPs of the model and of the program, and bytes over the links."""
    table = _table("one run", "")
    for part in ("encoder", "connector", "decoder", "head"):
        table.add_row(f"model FLOPs, {part}", f"{getattr(plan.model_flops, part):.3e}")
    table.add_row("model FLOPs (decoder attention causal: half)", f"{plan.model_flops.total:.3e}")
    if plan.program is not None:
        executed = plan.program.flops * plan.request.topology.devices
        table.add_row("FLOPs of the compiled program", f"{executed:.3e}")
        table.add_section()
        for kind, sent in plan.program.collective_bytes().items():
            table.add_row(f"{kind}, GB sent by each chip", f"{sent / 1e9:.3f}")
        if plan.request.topology.slices > 1:
            across = sum(plan.program.collective_bytes(between_slices=True).values())
            table.add_row("between slices, GB sent by each chip", f"{across / 1e9:.3f}")
        table.add_row("memory traffic, GB of each chip", f"{plan.program.hbm_bytes / 1e9:.3f}")
    return table


def time_table(prediction: Estimate) -> Table:
    """Predicted milliseconds of the slowest regions and of all, with the terms as if nothing overlapped."""
    table = _table("ms, predicted", "turns", "in all", "compute", "memory", "links", "limit")
    regions = sorted(prediction.regions, key=lambda region: -region.seconds)
    for region in regions[:_LONGEST_LIST]:
        _add_times(table, region)
    if len(regions) > _LONGEST_LIST:
        rest = f"{len(regions) - _LONGEST_LIST} shorter ones"
        table.add_row(rest, "", _milliseconds(sum(region.seconds for region in regions[_LONGEST_LIST:])))
    table.add_section()
    _add_times(table, prediction.total)
    return table


def summary(plan: Plan) -> list[str]:
    """The lines below the tables."""
    lines = []
    if plan.mfu is not None and plan.prediction is not None:
        songs = f", {plan.songs_per_second:.2f} songs/s" if plan.songs_per_second else ""
        devices = plan.request.topology.devices
        tokens = plan.tokens_per_second or 0.0
        lines.append(
            f"Predicted by a model, not measured: {plan.prediction.seconds:.4g} s, MFU {plan.mfu:.1%}, "
            f"{tokens:,.0f} tokens/s ({tokens / devices:,.0f} a chip){songs}"
        )
    lines += [f"Not counted: {what}" for what in _not_counted(plan)]
    return lines


def search_table(found: Found) -> Table:
    """The plans of a search, best first."""
    headings = ("fsdp", "tensor", "remat", "rows", "GiB", "fits", "seconds", "MFU")
    table = _table("data", *headings)
    for plan in found.plans:
        variant = plan.request.variant
        table.add_row(
            str(variant.mesh.data),
            str(variant.mesh.fsdp),
            str(variant.mesh.tensor),
            variant.remat,
            str(variant.rows),
            f"{plan.memory.total / GIB:.2f}",
            "yes" if plan.fits else "no",
            f"{plan.prediction.seconds:.4g}" if plan.prediction else "",
            f"{plan.mfu:.1%}" if plan.mfu is not None else "",
        )
    return table


def does_not_fit(plan: Plan, nearest: Plan | None) -> str:
    """One line: what is needed, what is there, and the nearest that fits."""
    request, memory = plan.request, plan.memory
    said = (
        f"{request.stage_name} does not fit {request.topology.name}: "
        f"it needs {memory.total / GIB:.2f} GiB of each chip, which has {memory.limit / GIB:.2f}"
    )
    if request.program != "train":
        return f"{said}; give fewer --rows, --weights int8, or a mesh of more chips"
    if nearest is not None:
        fits = nearest.request.variant.settings(request.stage_name)
        return f"{said}; the nearest that fits needs {nearest.memory.total / GIB:.2f} GiB: {fits}"
    larger = nearest_topology(request)
    if larger is None:
        return f"{said}; no slice of {request.topology.chip.name} holds it: take a chip with more memory"
    return f"{said}; none of the variants that were tried does; the smallest slice that may is {larger.name}"


def _add_times(table: Table, region: RegionTime) -> None:
    terms = (region.seconds, region.compute_seconds, region.memory_seconds, region.interconnect_seconds)
    table.add_row(region.name, str(region.times), *map(_milliseconds, terms), region.limit)


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.3f}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.4g}"


def _terms(region: RegionTime) -> dict[str, float]:
    return {
        "compute": region.compute_seconds,
        "memory": region.memory_seconds,
        "interconnect": region.interconnect_seconds,
        "host": region.host_seconds,
    }


def _not_counted(plan: Plan) -> list[str]:
    if plan.program is None:
        return []
    uncounted = [region.name for region in plan.program.regions if not region.counted]
    loops = [] if plan.request.program == "decode" else uncounted  # a turn of its loop is the token that is planned
    return [
        *(f"FLOPs of the kernel {name}" for name in plan.program.unknown_kernels),
        *(f"all turns but one of the loop {name}, whose end depends on data" for name in loops),
    ]


def _rounded(sent: dict[str, float]) -> dict[str, int]:
    return {kind: round(nbytes) for kind, nbytes in sent.items()}


def _table(first: str, *headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column(first, overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
