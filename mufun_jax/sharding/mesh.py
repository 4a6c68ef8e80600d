"""The device mesh: axes data, fsdp, tensor and context."""

import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from mufun_jax.axes import MESH_AXES
from mufun_jax.config import MeshConfig
from mufun_jax.errors import ConfigError

_AUTOMATIC = (AxisType.Auto,) * len(MESH_AXES)
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
    parts = _by_slice(jax.devices(), config.slices)
    in_slice = (config.data // config.slices, *config.shape[1:])
    laid = [jax.make_mesh(in_slice, MESH_AXES, axis_types=_AUTOMATIC, devices=part).devices for part in parts]
    return Mesh(np.concatenate(laid), MESH_AXES, axis_types=_AUTOMATIC)


def _by_slice(devices: list[Any], slices: int) -> list[list[Any]]:
    """The devices of each slice. Only TPUs say theirs; others are parted in their order, which is by process."""
    if devices[0].platform != "tpu":
        return [part.tolist() for part in np.split(np.array(devices), slices)]
    present = sorted({device.slice_index for device in devices})
    if len(present) != slices:
        raise ConfigError(
            f"mesh: slices {slices}, but the devices are of {len(present)}; --set mesh.slices={len(present)}, and "
            f"mesh.data to a multiple of it"
        )
    return [[device for device in devices if device.slice_index == index] for index in present]


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
    return jax.make_mesh(shape, MESH_AXES, axis_types=_AUTOMATIC, devices=devices)
