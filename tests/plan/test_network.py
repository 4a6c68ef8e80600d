"""Seconds of collectives and of regions, against the formulas worked out by hand."""

import pytest

from mufun_jax.plan.collectives import Collective, Kind
from mufun_jax.plan.estimate import (
    ATTENTION_EFFICIENCY,
    HOST_BANDWIDTH,
    MATMUL_EFFICIENCY,
    MEMORY_EFFICIENCY,
    estimate,
    utilization,
)
from mufun_jax.plan.hlo import parse_hlo
from mufun_jax.plan.network import Network, Place
from mufun_jax.plan.program import Program, Region, Work
from mufun_jax.plan.topology import parse_topology

HOP = 1e-6
LINK = 4.5e10  # of v5e
NBYTES = 10**9


def network(name: str, slices: int = 1) -> Network:
    """All chips, the last axis fastest."""
    topology = parse_topology(name, slices)
    x, y = topology.dims
    return Network(topology, tuple(Place(s, (i, j)) for s in range(slices) for i in range(x) for j in range(y)))


def collective(kind: Kind, group, nbytes: int = NBYTES, asynchronous: bool = False) -> Collective:
    return Collective(kind, nbytes, tuple(group), asynchronous, "c", "", ((nbytes,),))


@pytest.mark.parametrize(
    ("kind", "group", "seconds"),
    [
        # One row of the 16 x 16 torus: a ring, both directions at once, half way round.
        ("all-gather", range(16), NBYTES * 15 / 16 / (2 * LINK) + 8 * HOP),
        ("reduce-scatter", range(16), NBYTES * 15 / 16 / (2 * LINK) + 8 * HOP),
        ("all-reduce", range(16), 2 * (NBYTES * 15 / 16 / (2 * LINK) + 8 * HOP)),
        # Half a row is a line.
        ("all-gather", range(8), NBYTES * 7 / 8 / LINK + 7 * HOP),
        # All 256: two rings.
        ("all-gather", range(256), NBYTES * 255 / 256 / (4 * LINK) + 16 * HOP),
        # Each sends half to the other half of the ring, over two links.
        ("all-to-all", range(16), NBYTES * 16 / 4 / (2 * LINK) + 8 * HOP),
        ("collective-permute", (0, 1), NBYTES / LINK + HOP),
        ("collective-permute", (0, 15), NBYTES / LINK + HOP),  # round the ring
        ("collective-permute", (0, 33), NBYTES * 3 / LINK + 3 * HOP),  # two rows down, one along
    ],
)
def test_on_a_torus(kind, group, seconds):
    assert network("v5e:16x16").seconds(collective(kind, group)) == pytest.approx(seconds)


def test_without_wrap_an_axis_is_a_line():
    gathered = network("v5e:8x8").seconds(collective("all-gather", range(8)))
    assert gathered == pytest.approx(NBYTES * 7 / 8 / LINK + 7 * HOP)


def test_without_wrap_the_last_is_far_from_the_first():
    sent = network("v5e:8x8").seconds(collective("collective-permute", (0, 7)))
    assert sent == pytest.approx(NBYTES * 7 / LINK + 7 * HOP)


def test_between_slices_each_chip_exchanges_its_part():
    chip = parse_topology("v5e:4x4").chip
    net = network("v5e:4x4", 2)
    between = net.seconds(collective("all-reduce", (0, 16)))
    assert between == pytest.approx(2 * NBYTES / 2 / chip.network_bandwidth)
    whole = net.seconds(collective("all-reduce", range(32)))
    inside = net.seconds(collective("all-reduce", range(16)))
    assert whole == pytest.approx(inside + 2 * NBYTES / 16 / 2 / chip.network_bandwidth)


EMPTY = parse_hlo("ENTRY %main (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}\n")


def predicted(times: int, *work: Work, collectives=()) -> float:
    region = Region("layer", times, work, tuple(collectives), True)
    return estimate(Program(EMPTY, (region,), ()), network("v5e:16x16")).seconds


def test_a_layer_hides_what_is_asynchronous_and_waits_for_the_rest():
    chip = parse_topology("v5e:16x16").chip
    products = Work(flops=10**12, hbm_bytes=10**6)
    loads = Work(flops=0, hbm_bytes=10**9)
    products_time = 1e12 / (MATMUL_EFFICIENCY * chip.peak_flops)
    loads_time = 1e9 / (MEMORY_EFFICIENCY * chip.memory_bandwidth)
    computing = products_time + loads_time
    assert predicted(3, products, loads) == pytest.approx(3 * computing)

    short, long = collective("all-gather", range(16)), collective("all-gather", range(16), 10**10)
    gather = network("v5e:16x16").seconds(short)
    hidden = Collective("all-gather", short.nbytes, short.group, True, "c", "", ((1,),))
    assert predicted(3, products, loads, collectives=[short]) == pytest.approx(3 * (computing + gather))
    assert predicted(3, products, collectives=[hidden]) == pytest.approx(3 * max(products_time, gather))
    slow = collective("all-gather", range(16), 10**10, asynchronous=True)
    assert predicted(1, products, collectives=[slow]) == pytest.approx(network("v5e:16x16").seconds(long))


def test_transfers_run_beside_products_up_to_the_memorys_bandwidth():
    chip = parse_topology("v5e:16x16").chip
    products = Work(flops=10**12, hbm_bytes=0)
    moved = Work(flops=0, hbm_bytes=10**9, transfer=True)
    assert predicted(1, products, moved) == pytest.approx(1e12 / (MATMUL_EFFICIENCY * chip.peak_flops))
    assert predicted(1, moved) == pytest.approx(1e9 / (MEMORY_EFFICIENCY * chip.memory_bandwidth))
    offloaded = Work(flops=0, hbm_bytes=0, host_bytes=10**9, transfer=True)
    assert predicted(1, products, offloaded) == pytest.approx(1e9 / HOST_BANDWIDTH)


def test_attention_kernels_have_their_own_efficiency():
    chip = parse_topology("v5e:16x16").chip
    kernel = Work(flops=10**12, hbm_bytes=0, attention=True)
    assert predicted(1, kernel) == pytest.approx(1e12 / (ATTENTION_EFFICIENCY * chip.peak_flops))


def test_utilization_is_of_all_devices():
    chip = parse_topology("v5e:16x16").chip
    assert utilization(197 * 10**12, 2.0, 4, chip) == pytest.approx(1 / 8)
