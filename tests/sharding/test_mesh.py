from dataclasses import dataclass

import jax
import numpy as np
import pytest

from mufun_jax.config import MeshConfig
from mufun_jax.errors import ConfigError
from mufun_jax.sharding.mesh import inference_mesh, make_mesh
from mufun_jax.sharding.rules import RULES, partition_spec


def test_a_mesh_has_the_four_axes():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2))
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "tensor": 1, "context": 1}


def test_a_mesh_for_other_devices_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"data 2 x fsdp 1 x tensor 3 x context 1 = 6 devices, but 2 are here"):
        make_mesh(MeshConfig(data=2, tensor=3))


def test_inference_takes_one_device_of_a_cpu():
    assert inference_mesh().size == 1


def test_two_axes_on_one_mesh_axis_are_refused():
    assert partition_spec(("embed", "mlp"), "x") == jax.sharding.PartitionSpec(("fsdp",), ("tensor",))
    with pytest.raises(ValueError, match=r"x: 'heads' and 'mlp' both lie on mesh axis 'tensor'"):
        partition_spec(("heads", "mlp"), "x")
    with pytest.raises(ValueError, match=r"x: logical axis 'mlpp' has no rule"):
        partition_spec(("mlpp",), "x")


def test_rules_name_mesh_axes():
    assert {axis for mesh_axes in RULES.values() for axis in mesh_axes} == {"data", "fsdp", "tensor", "context"}


@dataclass(frozen=True)
class Chip:
    """A TPU as `make_mesh` sees it: one of 2 x 2 in a slice."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    core_on_chip: int = 0
    process_index: int = 0


def test_each_slice_holds_a_part_of_data(monkeypatch):
    places = [(x, y, 0, index) for x in range(2) for y in range(2) for index in range(2)]  # not slice by slice
    chips = [Chip(number, index, (x, y, z)) for number, (x, y, z, index) in enumerate(places)]
    monkeypatch.setattr(jax, "devices", lambda: chips)
    monkeypatch.setattr(jax, "device_count", lambda: len(chips))
    mesh = make_mesh(MeshConfig(data=4, fsdp=2))
    slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
    assert mesh.devices.shape == (4, 2, 1, 1)
    assert (slices[:2] == 0).all() and (slices[2:] == 1).all()
    with pytest.raises(ConfigError, match=r"mesh.data 1 does not divide over 2 slices.*nearest: 2"):
        make_mesh(MeshConfig(data=1, fsdp=8))
