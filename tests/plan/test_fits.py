"""The full model on TPU slices that are not here: that it fits them, and what its program does and does not hold.

Each compiles the real train step (or inference) for minutes: one of them in `make test-slow`, all in
`make test-full`, which prints what each needs.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

import pytest

import mufun_jax
from mufun_jax.config_file import load_run_config
from mufun_jax.plan.plan import Plan, Request, make_plan
from mufun_jax.plan.proof import attention_kernels, gathered_outside_loops, holds_array, reductions
from mufun_jax.plan.report import plan_json
from mufun_jax.plan.topology import parse_topology
from mufun_jax.sharding.chips import GIB

CONFIGS = Path(mufun_jax.__file__).parent.parent / "configs"
FREE = 0.08  # of a chip's memory, at least


@dataclass(frozen=True)
class Case:
    """A stage of a config on a topology."""

    topology: str
    stage: str = "finetune_long"
    settings: tuple[str, ...] = ()
    slices: int = 1
    config: str = "mufun_8b.py"
    program: str = "train"
    weights: str = "bfloat16"
    free: float = 0.0


def on(topology: str, data: int, fsdp: int, rows: int, stage: str = "finetune_long", **options) -> Case:
    more = options.pop("settings", ())
    settings = (f"mesh={{'data': {data}, 'fsdp': {fsdp}}}", f"stages.{stage}.rows={rows}", *more)
    return Case(topology, stage, settings, **options)


LORA = ("stages.finetune_long.encoder=lora", "stages.finetune_long.decoder=lora")
OFFLOAD = ("stages.finetune_long.remat=offload",)
CASES = {
    "all on 64 v5e": on("v5e:8x8", 1, 64, 64, free=FREE),
    "all on 64 v5p": on("v5p:4x4x4", 1, 64, 64, free=FREE),
    "layer inputs on the host, 64 v5e": on("v5e:8x8", 1, 64, 64, settings=OFFLOAD, free=FREE),
    "layer inputs on the host, 64 v5p": on("v5p:4x4x4", 1, 64, 64, settings=OFFLOAD, free=FREE),
    "all on 256 v6e": on("v6e:16x16", 1, 256, 256, free=FREE),
    "all on 2 slices of 256 v5e": on("v5e:16x16", 2, 256, 512, slices=2, free=FREE),
    "all on 256 v5e": on("v5e:16x16", 1, 256, 256, free=FREE),
    "warmup on 8 v5e": on("v5e:2x4", 1, 8, 8, stage="warmup"),
    "LoRA on 8 v5e": on("v5e:2x4", 1, 8, 8, settings=LORA),
    "60 minutes on 512 v5p": Case("v5p:8x8x8", "sixty_minutes", config="mufun_8b_long.py"),
    "20 minutes on 256 v5e": Case(
        "v5e:16x16",
        "twenty_minutes",
        ("mesh={'fsdp': 64, 'context': 4}", "stages.twenty_minutes.rows=64"),
        config="mufun_8b_long.py",
    ),
    "prefill of int8 on one v5e": on("v5e:1x1", 1, 1, 1, program="prefill", weights="int8"),
    "decoding of int8 on one v5e": on("v5e:1x1", 1, 1, 1, program="decode", weights="int8"),
}
SAMPLE = ("all on 64 v5p",)
EVERY = [
    pytest.param(
        name, marks=pytest.mark.slow if name in SAMPLE else pytest.mark.full, id=name.replace(",", "").replace(" ", "-")
    )
    for name in CASES
]


@functools.cache
def plan_of(name: str) -> Plan:
    case = CASES[name]
    only = f"curriculum=({case.stage!r},)"
    run = load_run_config(CONFIGS / case.config, [only, *case.settings])
    topology = parse_topology(case.topology, case.slices)
    return make_plan(Request(run, case.stage, topology, program=case.program, weights=case.weights))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", EVERY)
def test_fits(name, capsys):
    plan = plan_of(name)
    memory = plan.memory
    with capsys.disabled():
        values = plan_json(plan)
        print(
            f"\n{name}: {memory.total / GIB:.2f} of {memory.limit / GIB:.2f} GiB "
            f"(parameters {memory.parameters / GIB:.2f}, optimizer {memory.optimizer / GIB:.2f}, "
            f"activations {memory.activations / GIB:.2f}), predicted {1e3 * values['predicted_step_seconds']:.0f} ms, "
            f"MFU {values['predicted_mfu']:.1%}"
        )
    assert memory.total <= (1 - CASES[name].free) * memory.limit


@pytest.mark.slow
def test_weights_are_gathered_and_their_gradients_scattered_layer_by_layer():
    """On a torus of 64 v5p. A layer's weights are 368 MiB in bfloat16, and the tables of the vocabulary 1.2 GiB."""
    plan = plan_of("all on 64 v5p")
    assert plan.program is not None
    program = plan.program.hlo
    positions, vocabulary = 4096, 151_936
    assert attention_kernels(program), "no splash kernel"
    assert holds_array(program, positions, vocabulary) is None
    assert holds_array(program, 1024, vocabulary) is None, "the logits of all targets exist together"
    assert gathered_outside_loops(plan.program) < 0.5 * GIB, "weights are gathered outside of their layers' loops"
    # Of what is at least 16 MiB: the weights of layers. The vocabulary's tables, one in twelve, are added up whole.
    scattered, added_whole = reductions(plan.program, at_least=16 * 2**20)
    assert scattered > 0.9 * (scattered + added_whole), "gradients are added up whole on every chip"


@pytest.mark.full
@pytest.mark.parametrize("name", ["layer inputs on the host, 64 v5e", "layer inputs on the host, 64 v5p"])
def test_memory_beside_the_best_text_only_stack(name):
    """In the same compile MaxText 0.2.4 needs 1.43 + 6.0 GiB for the text-only Qwen3-8B: no more here, with encoder."""
    memory = plan_of(name).memory
    assert memory.parameters + memory.optimizer + memory.inputs + memory.activations <= 7.4 * GIB
