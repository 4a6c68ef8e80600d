"""`mufun plan`: its errors, what it prints, and how it searches. Compiling is in test_compiled.py."""

import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from mufun_jax import cli, plan_command
from mufun_jax.config import MeshConfig, RunConfig, StageConfig
from mufun_jax.errors import ConfigError
from mufun_jax.model.flops import train_flops
from mufun_jax.plan import plan as plan_module
from mufun_jax.plan import search as search_module
from mufun_jax.plan.estimate import Estimate, RegionTime
from mufun_jax.plan.hlo import parse_hlo
from mufun_jax.plan.memory import Memory, least_bytes, memory_refused
from mufun_jax.plan.plan import Plan, Request
from mufun_jax.plan.program import Program
from mufun_jax.plan.report import plan_json
from mufun_jax.plan.search import nearest_fit, nearest_topology, search
from mufun_jax.plan.topology import parse_topology
from mufun_jax.plan.variant import LEAST_MEMORY_FIRST, Variant, meshes, variant_of, with_variant
from mufun_jax.weights.params import abstract_params, count_params
from tests.tiny import param_shapes, tiny_decoder, tiny_encoder, tiny_model

GIB = 2**30


def tiny_request(topology: str = "v5e:2x2", slices: int = 1, rows: int = 8, **mesh: int) -> Request:
    described = parse_topology(topology, slices)
    shape = MeshConfig(**(mesh or {"data": slices, "fsdp": described.devices // slices}))
    stage = StageConfig(
        mixture={"songs": 1.0}, rows=rows, positions=64, windows=3, targets=8, longest_audio=3.0, steps=1
    )
    run = RunConfig(tiny_model(), "nano", "data", {"long": stage}, ("long",), mesh=shape)
    return Request(run, "long", described)


def made(request: Request, gib: float, seconds: float = 2.0) -> Plan:
    """A plan as if compiled: so much memory, so many seconds."""
    memory = Memory(request.topology.chip.memory_bytes, GIB, GIB, 0, int(gib * GIB) - 2 * GIB, 0, 0)
    hlo = parse_hlo("ENTRY %main (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}\n")
    prediction = Estimate((RegionTime("layers", 2, seconds, seconds, 0.5, 0.25, 0.0),))
    flops = train_flops(request.run.model, request.stage)
    return Plan(request, memory, 1000, flops, Program(hlo, (), ()), prediction, 1.0)


@pytest.fixture
def compiler(monkeypatch):
    """Stands for the compiler: memory by the variant. Gives the list of what was compiled."""
    compiled: list[Variant] = []

    def make_plan(request: Request) -> Plan:
        compiled.append(request.variant)
        rows = request.variant.rows / (request.variant.mesh.data * request.variant.mesh.fsdp)
        return made(request, 10.0 * rows + (8.0 if request.variant.remat == "none" else 0.0), seconds=rows)

    monkeypatch.setattr(search_module, "make_plan", make_plan)
    monkeypatch.setattr(plan_module, "make_plan", make_plan)
    return compiled


@pytest.fixture
def run(run):
    """Runs `mufun plan ARGUMENTS`."""
    return partial(run, "plan")


def nano(rows: int, *more: object, remat: Any = "layer") -> tuple[object, ...]:
    """Arguments for a stage of configs/nano.py on four chips."""
    settings = Variant(MeshConfig(data=2, tensor=2), remat, rows).settings("align1")
    return "--config", "configs/nano.py", "--topology", "v5e:2x2", "--stage", "align1", *settings.split(), *more


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--topology", "v5q:4x4"), "no chip 'v5q' (did you mean 'v5p'?)"),
        (("--topology", "v5e:4x5"), "v5e has no slice of 4x5 = 20 chips; the nearest is v5e:4x4, 16 chips"),
        (("--topology", "v5e:4x4"), "mesh: data 2 x fsdp 1 x tensor 1 x context 1 = 2 devices, but v5e:4x4 have 16"),
        (("--topology", "v5e:4x4", "--stage", "align"), "no stage 'align' (did you mean 'align2'?)"),
        (
            ("--topology", "v5e:2x2", "--set", "mesh.tensor=2", "--program", "decode", "--rows", 3),
            "--rows 3 does not divide over data x fsdp = 2; give 4",
        ),
        (
            ("--topology", "v5e:2x2", "--set", "mesh.tensor=2", "--rows", 8),
            "--rows 8 is for prefill and decode; a stage has 2: --set stages.finetune_long.rows=8",
        ),
        (
            ("--topology", "v5e:2x2", "--set", "mesh.tensor=2", "--weights", "int8"),
            "--weights int8 is for --program prefill and decode",
        ),
    ],
)
def test_bad_input_is_one_line_before_anything_is_compiled(run, compiler, arguments, message):
    code, out, err = run("--config", "configs/nano.py", *arguments)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert compiler == []


EXAMPLES = re.findall(r"`mufun plan (.*)`", cli.plan.__doc__ or "")


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_of_the_help_are_right(run, compiler, example):
    code, _, err = run(*example.split())
    assert code == 0, err
    assert len(compiler) == ("--benchmark" not in example)


def test_the_help_has_examples():
    assert len(EXAMPLES) >= 3


def test_what_fits_is_printed_as_one_object(run, compiler):
    code, out, err = run(*nano(2, "--json"))
    assert code == 0, err
    said = json.loads(out)
    assert said["fits"] is True and said["memory_per_chip_bytes"] == 10 * GIB
    assert said["mesh"] == {"data": 2, "fsdp": 1, "tensor": 2, "context": 1}
    assert said["memory_limit_bytes"] == int(15.75 * GIB)
    wanted = {"parameters", "model_flops_per_step", "predicted_step_seconds", "predicted_mfu", "memory_per_chip_bytes"}
    assert wanted <= set(said)


def test_tables_name_the_terms(run, compiler):
    code, out, _ = run(*nano(2))
    assert code == 0
    for word in ("activations", "headroom", "model FLOPs, encoder", "layers", "compute", "MFU", "songs/s"):
        assert word in out


def test_mfu_tokens_and_songs():
    request = tiny_request()
    plan = made(request, 10.0, seconds=2.0)
    flops = train_flops(request.run.model, request.stage).total
    assert plan.mfu == pytest.approx(flops / (2.0 * 4 * 197e12))
    assert plan.tokens_per_second == 8 * 64 / 2.0
    assert plan.songs_per_second == 8 / 2.0  # 3 windows of a second are one song of three seconds
    shorter = replace(request.stage, longest_audio=1.0)
    run = replace(request.run, stages={"long": shorter})
    assert made(replace(request, run=run), 10.0, 2.0).songs_per_second == 3 * 8 / 2.0


def test_memory_that_is_not_there_does_not_fit():
    assert made(tiny_request(), 15.5).fits
    assert not made(tiny_request(), 16.0).fits
    refused = replace(made(tiny_request(), 10.0), program=None, prediction=None)
    assert not refused.fits
    said = plan_json(refused)
    assert said["predicted_step_seconds"] is None and said["program_flops_per_step"] is None


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (600.00G) "
            "exceeds available HBM (15.75G).",
            600.0,
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 22.50G "
            "of 15.75G hbm. Exceeded hbm capacity by 6.75G.",
            22.5,
        ),
    ],
)
def test_the_compilers_refusal_is_read(message, gib):
    memory = memory_refused(message, GIB, GIB, 0, int(15.75 * GIB))
    assert memory is not None and not memory.fits
    assert memory.total == int(gib * GIB) and memory.activations == int(gib * GIB) - 2 * GIB
    assert memory_refused("INTERNAL: something else", GIB, GIB, 0, GIB) is None


def test_the_nearest_that_fits_keeps_the_mesh_and_takes_a_stricter_policy_first(compiler):
    request = tiny_request(rows=4)
    request = replace(request, run=with_variant(request.run, "long", replace(request.variant, remat="none")))
    fits = nearest_fit(made(request, 18.0), 6, lambda *_: None)
    assert fits is not None and fits.fits
    assert fits.request.variant == Variant(MeshConfig(fsdp=4), LEAST_MEMORY_FIRST[-2], 4)
    assert len(compiler) == 1


def test_the_nearest_that_fits_has_fewer_rows_where_no_policy_helps(compiler):
    fits = nearest_fit(made(tiny_request(rows=16), 40.0), 6, lambda *_: None)
    assert fits is not None
    assert fits.request.variant.rows == 4 and fits.request.variant.mesh == MeshConfig(fsdp=4)


def test_nothing_more_is_compiled_than_tries(compiler):
    assert nearest_fit(made(tiny_request(rows=32), 80.0), 1, lambda *_: None) is None
    assert len(compiler) == 1


def test_the_error_says_what_is_needed_and_the_settings_of_the_nearest(run, compiler):
    code, out, err = run(*nano(6, "--json"))
    assert code == 2
    assert "it needs 30.00 GiB of each chip, which has 15.75" in err and err.count("\n") == 1
    assert "the nearest that fits needs 10.00 GiB: --set mesh." in err
    said = json.loads(out)
    assert said["fits"] is False and said["nearest"]["fits"] is True


def test_a_search_compiles_so_many_and_orders_them(compiler):
    shown = []
    found = search(tiny_request(), 5, lambda done, total, note="": shown.append((done, total)))
    assert len(found.plans) == len(compiler) == 5
    assert shown == [(done, 5) for done in range(6)]
    assert found.candidates > 5 and found.pruned == 0
    fits = [plan for plan in found.plans if plan.fits]
    assert found.plans[: len(fits)] == tuple(fits)
    assert [plan.mfu for plan in fits] == sorted((plan.mfu or 0.0 for plan in fits), reverse=True)
    assert len({(variant.mesh.tensor, variant.remat) for variant in compiler}) >= 4  # no five of a kind
    for variant in compiler:
        assert variant.rows % (variant.mesh.data * variant.mesh.fsdp) == 0
        assert variant.mesh.data * variant.mesh.fsdp * variant.mesh.tensor == 4


def test_a_search_leaves_out_what_cannot_fit(compiler):
    request = tiny_request()
    large = replace(request.run.model, decoder=replace(request.run.model.decoder, vocab_size=300_000_000))
    found = search(replace(request, run=replace(request.run, model=large)), 50, lambda *_: None)
    assert found.pruned > 0
    assert all(variant.mesh.data < 4 for variant in compiler)


def test_long_sequences_are_split_over_context_too():
    run = tiny_request().run
    assert {mesh.context for mesh in meshes(run, 64, 8, 1)} == {1}
    assert {mesh.context for mesh in meshes(run, 4 * 2048, 8, 1)} == {1, 2, 4}
    assert all(mesh.data * mesh.fsdp * mesh.tensor * mesh.context == 8 for mesh in meshes(run, 8192, 8, 1))


def test_only_training_is_searched():
    with pytest.raises(ConfigError, match="--search is for --program train, not decode"):
        search(replace(tiny_request(), program="decode"), 3, lambda *_: None)


def test_the_bound_below_memory_counts_the_state_exactly():
    request = tiny_request(rows=4)
    run, stage = request.run, request.stage
    params = abstract_params(run.model)
    whole = with_variant(run, "long", Variant(MeshConfig(), "none", 1))
    count = count_params(param_shapes(run.model))
    bound = least_bytes(whole, whole.stages["long"], "offload", params)
    assert bound == pytest.approx(16 * count, rel=1e-3)  # float32: parameters, gradients, two moments
    frozen = replace(stage, encoder="frozen", connector="frozen", rows=1)
    decoder = count_params(param_shapes(run.model)["decoder"])
    bound = least_bytes(whole, frozen, "offload", params)
    assert bound == pytest.approx(16 * decoder + 4 * (count - decoder), rel=1e-3)


def test_a_larger_slice_is_named_where_nothing_here_fits():
    request = tiny_request("v5e:2x2")
    # Widths that 16 chips divide.
    model = tiny_model(tiny_encoder(width=48), tiny_decoder(width=32, vocab_size=320_000_000))
    larger = nearest_topology(replace(request, run=replace(request.run, model=model)))
    # 320 M x 32 x 16 bytes = 153 GiB: 8 chips of 15.75 do not hold it, 16 do.
    assert larger is not None and larger.name == "v5e:4x4"


def test_a_variant_goes_into_the_config_and_comes_back():
    request = tiny_request()
    for remat in LEAST_MEMORY_FIRST:
        variant = Variant(MeshConfig(data=2, fsdp=2), remat, 12)
        assert variant_of(with_variant(request.run, "long", variant), "long") == variant


def test_the_library_can_be_asked_without_the_command_line(compiler):
    plan_command.plan(
        with_variant(tiny_request().run, "long", Variant(MeshConfig(fsdp=4), "layer", 4)), None, "v5e:2x2"
    )
    assert len(compiler) == 1
