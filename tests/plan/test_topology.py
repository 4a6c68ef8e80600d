"""Names of slices, their torus, and meshes that match; nothing here needs the TPU compiler."""

import pytest

from mufun_jax.config import MeshConfig
from mufun_jax.errors import ConfigError, UserError
from mufun_jax.plan import topology as topology_module
from mufun_jax.plan.topology import check_mesh, make_topology_mesh, nearest_mesh, parse_topology, slice_shapes
from mufun_jax.sharding.chips import CHIPS


@pytest.mark.parametrize(
    ("text", "devices", "wrap"),
    [
        ("v5e:1x1", 1, (False, False, False)),
        ("v5e:8x8", 64, (False, False, False)),
        ("v5e:8x16", 128, (False, True, False)),
        ("v5e:16x16", 256, (True, True, False)),
        ("v6e:16x16", 256, (True, True, False)),
        ("v5p:2x4x4", 32, (False, False, False)),
        ("v5p:4x4x4", 64, (True, True, True)),
        ("v5p:8x8x16", 1024, (True, True, True)),
        ("v4:4x4x8", 128, (True, True, True)),
        ("tpu7x:4x4x4", 128, (True, True, True)),
    ],
)
def test_a_slice_wraps_where_the_hardware_does(text, devices, wrap):
    topology = parse_topology(text)
    assert topology.name == text
    assert topology.devices == devices
    assert topology.wrap == wrap


def test_slices_multiply_devices():
    assert parse_topology("v6e:16x16", 4).devices == 1024


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v5:4x4", r"no chip 'v5' \(did you mean 'v5p'\?\); known: v4, v5e, v5p, v6e, tpu7x"),
        ("v5e:16x17", r"v5e has no slice of 16x17 = 272 chips; the nearest is v5e:16x16, 256 chips"),
        ("v5e:64", r"v5e has no slice of 64 = 64 chips; the nearest is v5e:8x8, 64 chips"),
        ("v5p:5x5x5", r"v5p has no slice of 5x5x5 = 125 chips; the nearest is v5p:4x4x8, 128 chips"),
        ("v5p:4x4", r"v5p has no slice of 4x4 = 16 chips; the nearest is v5p:2x2x4, 16 chips"),
        ("v5e:", r"write chips along each axis, for instance v5e:4x4"),
        ("v5p:4xfour", r"write chips along each axis, for instance v5p:4x4x4"),
        ("v5e:99999999999x2", r"write chips along each axis"),
    ],
)
def test_an_unknown_topology_is_answered_with_the_nearest(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_topology(text)


def test_slices_end_at_the_whole_pod():
    shapes = slice_shapes(CHIPS["v5p"])
    assert (16, 20, 28) in shapes and (28, 28, 28) not in shapes
    with pytest.raises(ConfigError, match="--slices 0: at least 1"):
        parse_topology("v5e:4x4", 0)


@pytest.mark.parametrize(
    ("mesh", "slices", "message"),
    [
        (
            dict(data=2, fsdp=128),
            1,
            r"mesh: data 2 x fsdp 128 x tensor 1 x context 1 = 256 devices, but v5e:4x4 have 16; for instance "
            r"--set mesh.data=2 --set mesh.fsdp=8 --set mesh.tensor=1 --set mesh.context=1",
        ),
        (
            dict(fsdp=16),
            2,
            r"= 16 devices, but 2 slices of v5e:4x4 have 32; for instance --set mesh.data=2 --set mesh.fsdp=16",
        ),
        (
            dict(fsdp=32),
            2,
            r"data 1 does not divide over 2 slices, and only data is split over them; for instance --set mesh.data=2",
        ),
    ],
)
def test_a_mesh_for_other_devices_is_refused_with_both_numbers(mesh, slices, message):
    with pytest.raises(ConfigError, match=message):
        check_mesh(MeshConfig(**mesh), parse_topology("v5e:4x4", slices))


@pytest.mark.parametrize("mesh", [dict(), dict(data=3, fsdp=7), dict(tensor=6, context=4), dict(data=64, tensor=8)])
@pytest.mark.parametrize("slices", [1, 2])
def test_the_nearest_mesh_is_one_that_matches(mesh, slices):
    topology = parse_topology("v6e:8x8", slices)
    check_mesh(nearest_mesh(MeshConfig(**mesh), topology), topology)


def test_without_the_tpu_compiler_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(topology_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mufun_jax\[plan\]'"):
        make_topology_mesh(MeshConfig(), parse_topology("v5e:1x1"))
