"""Programs that the TPU compiler makes here, for chips that are not here: exact counts, memory, and the command."""

import functools
import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jax.sharding import NamedSharding, PartitionSpec

from mufun_jax.config import MeshConfig
from mufun_jax.generate.programs import without_cache
from mufun_jax.model.presets import preset
from mufun_jax.plan.estimate import estimate
from mufun_jax.plan.network import Network
from mufun_jax.plan.program import Program, read_program
from mufun_jax.plan.proof import attention_kernels, gathered_outside_loops, holds_array, kernels, reductions
from mufun_jax.plan.topology import make_topology_mesh, parse_topology
from mufun_jax.sharding.chips import CHIPS
from mufun_jax.weights.quantize import quantized_bytes
from tests.tiny import param_shapes

pytestmark = pytest.mark.slow

LAYERS, WIDTH, MLP, LENGTH, HEADS, HEAD_SIZE, BLOCK, ROWS = 4, 512, 2048, 1024, 4, 128, 512, 2  # rows of a chip
TOKENS = ROWS * LENGTH
PROJECTIONS = 2 * TOKENS * WIDTH * (2 * MLP + HEADS * HEAD_SIZE)  # of one layer, forward
# Blocks of 512 x 512: of four, the causal mask leaves three.
PRODUCT = 2 * ROWS * HEADS * 3 * BLOCK * BLOCK * HEAD_SIZE


@functools.cache
def layered_program(name: str, fused: bool) -> tuple[Program, Any]:
    """A scanned, rematerialised stack of attention and a two-layer perceptron, weights split over all chips."""
    topology = parse_topology(name)
    mesh = make_topology_mesh(MeshConfig(fsdp=topology.devices), topology)
    sizes: dict[str, Any] = dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"), BLOCK)
    sizes |= {"block_kv_compute": BLOCK, "block_kv_dkv_compute": BLOCK, "use_fused_bwd_kernel": fused}
    sizes |= {} if fused else {"block_q_dq": BLOCK, "block_kv_dq": BLOCK}
    mask = masks.MultiHeadMask([masks.CausalMask((LENGTH, LENGTH))] * HEADS)
    kernel = splash.make_splash_mha(mask, head_shards=1, q_seq_shards=1, block_sizes=splash.BlockSizes(**sizes))
    by_row = PartitionSpec("fsdp")

    def layer(segments, x, weights):
        query, up, down = (weight.astype(x.dtype) for weight in weights)
        heads = jnp.einsum("bsd,dnh->bnsh", x, query)

        def attend(q, s):
            return jax.vmap(lambda q, s: kernel(q, q, q, splash.SegmentIds(s, s)))(q, s)

        attended: Any = jax.shard_map(attend, mesh=mesh, in_specs=(by_row, by_row), out_specs=by_row, check_vma=False)(
            heads, segments
        )
        mixed = attended.transpose(0, 2, 1, 3).reshape(x.shape)
        return x + jax.nn.relu(mixed @ up) @ down, None

    def step(weights, x, segments):
        def loss(weights):
            remat = jax.checkpoint(functools.partial(layer, segments))
            return (jax.lax.scan(remat, x, weights)[0].astype(jnp.float32) ** 2).mean()

        return jax.tree.map(lambda weight, gradient: weight - gradient, weights, jax.grad(loss)(weights))

    def shape(dims, dtype, *spec):
        return jax.ShapeDtypeStruct(dims, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

    rows = ROWS * topology.devices
    weights = (
        shape((LAYERS, WIDTH, HEADS, HEAD_SIZE), jnp.float32, None, "fsdp"),
        shape((LAYERS, WIDTH, MLP), jnp.float32, None, "fsdp"),
        shape((LAYERS, MLP, WIDTH), jnp.float32, None, None, "fsdp"),
    )
    x, segments = shape((rows, LENGTH, WIDTH), jnp.bfloat16, "fsdp"), shape((rows, LENGTH), jnp.int32, "fsdp")
    with jax.set_mesh(mesh), without_cache():
        out = jax.tree.map(lambda leaf: leaf.sharding, weights)
        text = jax.jit(step, out_shardings=out).lower(weights, x, segments).compile().as_text()
    assert text is not None
    return read_program(text, topology.devices), mesh


@pytest.mark.parametrize(("name", "fused", "backward"), [("v5e:2x4", False, 7), ("v5p:4x4x4", True, 5)])
def test_flops_of_scanned_layers_with_splash_attention_are_exact(name, fused, backward):
    program, _ = layered_program(name, fused)
    # Forward; forward again but for the last product; two products for each weight. Attention: 2 and 2 again products
    # forward, and those of the backward kernels.
    projections = PROJECTIONS + (PROJECTIONS - 2 * TOKENS * MLP * WIDTH) + 2 * PROJECTIONS
    assert program.flops == LAYERS * (projections + (2 + 2 + backward) * PRODUCT)
    assert program.unknown_kernels == ()
    assert len(attention_kernels(program.hlo)) == (3 if fused else 4)
    assert kernels(program.hlo) == attention_kernels(program.hlo)


def test_weights_are_gathered_a_layer_at_a_time_on_v5p():
    program, _ = layered_program("v5p:4x4x4", True)
    weight = 2 * WIDTH * MLP  # bytes, bfloat16
    attention = 2 * WIDTH * HEADS * HEAD_SIZE
    whole = LAYERS * (2 * weight + attention)
    sent = program.collective_bytes()
    assert sent["all-gather"] == 2 * whole * 63 / 64  # forward and backward
    scattered, reduced = reductions(program, at_least=attention)
    assert scattered + reduced == whole  # each gradient once
    assert gathered_outside_loops(program) < weight


def test_what_is_in_memory_and_what_is_not():
    program, _ = layered_program("v5p:4x4x4", True)
    assert holds_array(program.hlo, LENGTH, MLP) is not None
    assert holds_array(program.hlo, LENGTH, LENGTH) is None  # no attention weights
    assert holds_array(program.hlo, LAYERS, WIDTH, MLP) is None  # no whole stack


def test_prediction_is_between_the_roofs_and_twice_them():
    program, mesh = layered_program("v5p:4x4x4", True)
    predicted = estimate(program, Network.of(mesh, parse_topology("v5p:4x4x4"))).total
    terms = (predicted.compute_seconds, predicted.memory_seconds, predicted.interconnect_seconds)
    assert max(terms) <= predicted.seconds <= sum(terms)


@pytest.mark.parametrize(
    ("name", "wraps"),
    [("v5e:16x16", True), ("v6e:16x16", True), ("v5p:4x4x4", True), ("v5e:8x8", False), ("tpu7x:2x2x1", False)],
)
def test_devices_of_a_mesh_are_all_of_the_topology(name, wraps):
    topology = parse_topology(name)
    mesh = make_topology_mesh(MeshConfig(fsdp=topology.devices), topology)
    assert mesh.size == topology.devices and any(topology.wrap) == wraps
    assert len({(tuple(device.coords), device.id) for device in mesh.devices.flat}) == topology.devices


def test_only_data_lies_across_slices():
    topology = parse_topology("v5e:4x4", 2)
    mesh = make_topology_mesh(MeshConfig(data=4, fsdp=8), topology)
    slices = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert (slices[:2] == 0).all() and (slices[2:] == 1).all()


def test_what_crosses_slices_is_told_from_what_does_not():
    topology = parse_topology("v5e:2x2", 2)
    mesh = make_topology_mesh(MeshConfig(data=2, fsdp=4), topology)
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    x = jax.ShapeDtypeStruct((8, 2**20), jnp.float32, sharding=split)
    net = Network.of(mesh, topology)

    def seconds(axis: str) -> float:
        summed: Any = jax.shard_map(
            lambda part: jax.lax.psum(part, axis),
            mesh=mesh,
            in_specs=split.spec,
            out_specs=PartitionSpec(),
            check_vma=False,
        )
        with without_cache():
            text = jax.jit(summed).lower(x).compile().as_text()
        assert text is not None
        ((_, reduced),) = read_program(text, 8, slices=2).collectives()
        assert (reduced.kind, reduced.nbytes) == ("all-reduce", 2**22)
        assert reduced.between_slices == (axis == "data")
        assert len({net.places[number].slice_index for number in reduced.group}) == (2 if axis == "data" else 1)
        return net.seconds(reduced)

    chip = topology.chip
    assert seconds("data") == pytest.approx(2 * 2**22 / 2 / chip.network_bandwidth)
    assert seconds("fsdp") == pytest.approx(2 * (2**22 * 3 / 4 / (2 * chip.link_bandwidth) + 2e-6))


def mufun_plan(*arguments: str) -> tuple[int, Any, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TPU_", "XLA_"))}
    done = subprocess.run(
        [sys.executable, "-m", "mufun_jax.cli", "plan", *arguments], capture_output=True, text=True, env=environment
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_decoding_on_one_chip_by_the_command():
    code, said, err = mufun_plan(
        "--config", "configs/nano.py", "--topology", "v5e:1x1", "--set", "mesh.data=1", "--program", "decode",
        "--weights", "int8", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert said["fits"] is True and said["devices"] == 1
    # The encoder and the connector are in memory too, though one more token does not need them.
    assert said["parameters"] < said["memory"]["parameters"] < 2 * said["parameters"]
    assert set(said["interconnect_bytes_per_chip"].values()) == {0}
    assert said["limited_by"] == "memory"


@pytest.mark.parametrize("rows", [1, 8])
def test_a_token_of_the_full_model_takes_little_longer_than_to_read_weights_and_cache_once(rows):
    """int8, each row after a song of its own of 390 s, on one v5e: predicted from the loop that generation runs."""
    code, said, err = mufun_plan(
        "--config", "configs/mufun_8b.py", "--topology", "v5e:1x1", "--set", "mesh={'data': 1, 'fsdp': 1}", "--stage",
        "finetune_long", "--program", "decode", "--weights", "int8", "--rows", str(rows), "--json",
    )  # fmt: skip
    assert code == 0, err
    model = preset("mufun_8b")
    decoder = {name: leaf for name, leaf in param_shapes(model)["decoder"].items() if name != "embedding"}
    positions, head = 4096, model.decoder
    cache = 2 * 2 * rows * positions * head.layers * head.kv_heads * head.head_size  # bfloat16, keys and values
    floor = (quantized_bytes({"decoder": decoder}, "bfloat16") + cache) / CHIPS["v5e"].memory_bandwidth
    # What is outside of the loop is done once for all tokens that are drawn in one call.
    token = sum(region["seconds"] for region in said["regions"] if region["name"] != "outside of loops")
    assert said["fits"] is True and said["not_counted"] == []
    assert floor < token <= 1.3 * floor


def test_what_the_compiler_refuses_is_refused_with_both_numbers():
    code, said, err = mufun_plan(
        "--config", "configs/nano.py", "--topology", "v5e:1x1", "--set", "mesh.data=1", "--program", "decode",
        "--rows", "40000", "--json",
    )  # fmt: skip
    assert code == 2
    assert said["fits"] is False and said["memory_per_chip_bytes"] > said["memory_limit_bytes"]
    assert "GiB of each chip, which has 15.75; give fewer --rows" in err
