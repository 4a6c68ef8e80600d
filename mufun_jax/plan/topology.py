"""TPU slices that need not be there: their names, their torus, and a mesh of their devices to compile for."""

import importlib.util
import os
import re
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from mufun_jax.axes import MESH_AXES
from mufun_jax.config import MeshConfig
from mufun_jax.errors import ConfigError, UserError, nearest
from mufun_jax.sharding.chips import CHIPS, Chip
from mufun_jax.sharding.mesh import mesh_of

# libtpu looks for a TPU host round it; these say that there is none, and let other processes compile too.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_RING = 16  # chips: an axis of a v5e or v6e slice wraps only where it is the whole pod's
_CUBE = 4  # chips along each axis of the cubes that v4, v5p and tpu7x are built of; whole cubes wrap
_FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))  # slices of v5e and v6e
_BELOW_A_CUBE = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))  # of v4, v5p and tpu7x


@dataclass(frozen=True)
class Topology:
    """One or several slices of a generation of TPU. `name` is `v5e:16x16`, chips along each axis of the torus."""

    chip: Chip
    dims: tuple[int, ...]
    slices: int = 1

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.dims))}"

    @property
    def chips(self) -> int:
        return prod(self.dims) * self.slices

    @property
    def devices(self) -> int:
        """JAX devices, of all slices."""
        return self.chips * self.chip.devices_per_chip

    @property
    def wrap(self) -> tuple[bool, bool, bool]:
        """Along which axes the last chip is linked to the first."""
        if self.chip.torus_dims == 2:
            wraps = [size == _RING for size in self.dims]
        else:
            wraps = [all(size % _CUBE == 0 for size in self.dims)] * 3
        return (wraps[0], wraps[1], wraps[2] if len(wraps) == 3 else False)


def parse_topology(text: str, slices: int = 1) -> Topology:
    """`v5e:16x16` or `v5p:4x4x8` as a Topology. Raises ConfigError, with the nearest that exists, for another word."""
    name, _, size = text.partition(":")
    if name not in CHIPS:
        raise ConfigError(f"--topology {text}: no chip {name!r}{nearest(name, list(CHIPS))}; known: {', '.join(CHIPS)}")
    chip = CHIPS[name]
    example = "4x4" if chip.torus_dims == 2 else "4x4x4"
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3})*", size):
        raise ConfigError(f"--topology {text}: write chips along each axis, for instance {name}:{example}")
    if slices < 1:
        raise ConfigError(f"--slices {slices}: at least 1")
    dims = tuple(int(each) for each in size.split("x"))
    known = slice_shapes(chip)
    if dims not in known:
        closest = min(known, key=lambda shape: (abs(prod(shape) - prod(dims)), _distance(shape, dims)))
        raise ConfigError(
            f"--topology {text}: {name} has no slice of {size} = {prod(dims)} chips; "
            f"the nearest is {Topology(chip, closest).name}, {prod(closest)} chips"
        )
    return Topology(chip, dims, slices)


def slice_shapes(chip: Chip) -> list[tuple[int, ...]]:
    """The slices of a generation: for a torus of three axes, parts of a cube and whole cubes, smallest axis first."""
    if chip.torus_dims == 2:
        return [*_FLAT, *(shape[::-1] for shape in _FLAT if shape[0] != shape[1])]
    longest = max(chip.largest)
    sizes = range(_CUBE, longest + 1, _CUBE)
    cubes = (shape for shape in product(sizes, repeat=3) if prod(shape) <= prod(chip.largest))
    return [*_BELOW_A_CUBE, *cubes]


def check_mesh(config: MeshConfig, topology: Topology) -> None:
    """Raises ConfigError, with both numbers and a choice that works, where a mesh is for other devices than these."""
    wanted = prod(config.shape)
    if wanted != topology.devices:
        sizes = " x ".join(f"{axis} {size}" for axis, size in zip(MESH_AXES, config.shape, strict=True))
        slices = f"{topology.slices} slices of " if topology.slices > 1 else ""
        raise ConfigError(
            f"mesh: {sizes} = {wanted} devices, but {slices}{topology.name} have {topology.devices}; "
            f"for instance {_as_settings(nearest_mesh(config, topology))}"
        )
    if config.data % topology.slices:
        raise ConfigError(
            f"mesh: data {config.data} does not divide over {topology.slices} slices, and only data is split over "
            f"them; for instance {_as_settings(nearest_mesh(config, topology))}"
        )


def nearest_mesh(config: MeshConfig, topology: Topology) -> MeshConfig:
    """The mesh of all devices that keeps as much of `config` as it can: context, tensor, and then data."""
    in_slice = topology.devices // topology.slices
    context = _largest_divisor(in_slice, config.context)
    tensor = _largest_divisor(in_slice // context, config.tensor)
    left = in_slice // context // tensor
    data = _largest_divisor(left, max(1, config.data // topology.slices))
    return MeshConfig(data=data * topology.slices, fsdp=left // data, tensor=tensor, context=context)


def make_topology_mesh(config: MeshConfig, topology: Topology) -> Mesh:
    """The mesh of a slice's devices, laid so that each axis is a line or ring of the torus where one exists.

    Raises ConfigError for a mesh of another size, and UserError where the TPU compiler is not installed.
    """
    check_mesh(config, topology)
    return mesh_of(config, _describe(topology))


def _describe(topology: Topology) -> list[Any]:
    """The devices of a topology, from libtpu."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("mufun plan needs the TPU compiler, which is not installed: pip install 'mufun_jax[plan]'")
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    jax.config.update("jax_platforms", "cpu")  # what this machine has is no part of the plan
    chip = topology.chip
    size = (*topology.dims, 1)[:3]
    host = tuple(min(pair) for pair in zip(size, chip.host, strict=True))
    described = topologies.get_topology_desc(
        f"{chip.library_name}:{'x'.join(map(str, topology.dims))}",
        platform="tpu",
        chips_per_host_bounds=host,
        num_slices=topology.slices,
        wrap=topology.wrap,
        **dict(chip.options),
    )
    assert len(described.devices) == topology.devices, (topology.name, len(described.devices))
    return list(described.devices)


def _as_settings(mesh: MeshConfig) -> str:
    pairs = zip(MESH_AXES, mesh.shape, strict=True)
    return " ".join(f"--set mesh.{axis}={size}" for axis, size in pairs)


def _largest_divisor(number: int, limit: int) -> int:
    return max(size for size in range(1, min(limit, number) + 1) if number % size == 0)


def _distance(shape: tuple[int, ...], other: tuple[int, ...]) -> int:
    padded = (*other, *(1,) * len(shape))[: len(shape)]
    return sum(abs(a - b) for a, b in zip(shape, padded, strict=True))
