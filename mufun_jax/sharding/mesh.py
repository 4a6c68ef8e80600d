"""The device mesh: axes data, fsdp, tensor and context."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from mufun_jax.axes import MESH_AXES
from mufun_jax.config import MeshConfig
from mufun_jax.errors import ConfigError

_THREADS_PER_DEVICE = 4  # a device may wait in several collectives at once, each on a thread


def simulate_devices(config: MeshConfig) -> None:
    """Splits the CPU of this process into `config.simulated_devices`. Must come before anything touches a device."""
    if config.simulated_devices:
        # With as many threads as cores, two devices that wait in different collectives wait for ever.
        threads = max(os.cpu_count() or 1, _THREADS_PER_DEVICE * config.simulated_devices)
        os.environ["PJRT_NPROC"] = str(threads)
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", config.simulated_devices)


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of all devices. Raises ConfigError, with both numbers, where the config is for another number."""
    wanted, present = config.data * config.fsdp * config.tensor * config.context, jax.device_count()
    if wanted != present:
        sizes = " x ".join(f"{axis} {size}" for axis, size in zip(MESH_AXES, config.shape, strict=True))
        processes = jax.process_count()
        here = f"{present} are here" if processes == 1 else f"{present} are here, of {processes} processes"
        raise ConfigError(f"mesh: {sizes} = {wanted} devices, but {here}; {_fitting(config, wanted, present)}")
    return mesh_of(config, jax.devices())


def mesh_of(config: MeshConfig, devices: Sequence[Any]) -> Mesh:
    """A mesh of so many devices, each axis a ring or line of the torus where there is one.

    Of several slices each has its share of `data`: only that axis crosses the network between them. Raises ConfigError
    where it does not divide.
    """
    slices: dict[int, list[Any]] = {}
    for device in devices:
        index = getattr(device, "slice_index", 0) if device.platform == "tpu" else 0  # of others it is not a network's
        slices.setdefault(index, []).append(device)
    if config.data % len(slices):
        nearest = max(1, round(config.data / len(slices))) * len(slices)
        raise ConfigError(
            f"mesh.data {config.data} does not divide over {len(slices)} slices, and only data is split over them; "
            f"nearest: {nearest}"
        )
    shape = (config.data // len(slices), *config.shape[1:])
    array = np.concatenate([_lay(shape, slices[index]) for index in sorted(slices)])
    return Mesh(array, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def _lay(shape: tuple[int, ...], devices: Sequence[Any]) -> np.ndarray:
    """Devices of one slice in the mesh's shape. Where no whole axes of the torus fit, they are split."""
    try:
        return mesh_utils.create_device_mesh(shape, devices)
    except NotImplementedError:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)


def _fitting(config: MeshConfig, wanted: int, present: int) -> str:
    """The fewest settings with which mesh and devices fit."""
    processes = jax.process_count()
    if config.simulated_devices and wanted % processes == 0:
        each = f" ({wanted // processes} on each process)" if processes > 1 else ""
        return f"for instance --set mesh.simulated_devices={wanted // processes}{each}"
    for axis in ("fsdp", "data", "tensor", "context"):
        others = wanted // getattr(config, axis)
        if present % others == 0:
            return f"for instance --set mesh.{axis}={present // others}"
    ones = " ".join(f"--set mesh.{axis}=1" for axis in ("data", "tensor", "context") if getattr(config, axis) > 1)
    return f"for instance --set mesh.fsdp={present} {ones}"


def inference_mesh() -> Mesh:
    """All accelerators, parameters split over them; of a CPU, one device, simulated ones included."""
    devices = jax.devices() if jax.default_backend() != "cpu" else jax.devices()[:1]
    shape = (1, len(devices), 1, 1)
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)
