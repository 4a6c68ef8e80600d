"""What one chip of each TPU generation can do, as its maker publishes it.

Sources: the system architecture tables of cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x} (peak, memory, bandwidth,
torus), and "How to Scale Your Model" (jax-ml.github.io/scaling-book/tpus, /roofline) for bytes a second of one link in
one direction and of the data-centre network. Memory that a program may use is what libtpu 0.0.42 says when a program
is too large: "exceeds available HBM (15.75G)".
"""

from dataclasses import dataclass
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """One JAX device of a generation: a chip, or, where a chip is two devices, half of one."""

    name: str
    library_name: str  # what libtpu calls it
    peak_flops: float  # bfloat16 matrix products, FLOPs a second
    memory_bytes: int  # that a program may use
    memory_bandwidth: float  # bytes a second
    link_bandwidth: float  # bytes a second over one link of the torus in one direction
    network_bandwidth: float  # bytes a second over the data-centre network, a device's share of its host's
    torus_dims: int
    largest: tuple[int, ...]  # the whole pod
    host: tuple[int, int, int]  # chips of one host
    devices_per_chip: int = 1
    options: tuple[tuple[str, Any], ...] = ()  # further words that libtpu needs


CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            "v4",
            "v4",
            peak_flops=275e12,
            memory_bytes=int(30.75 * GIB),
            memory_bandwidth=1.2e12,
            link_bandwidth=4.5e10,
            network_bandwidth=6.25e9,
            torus_dims=3,
            largest=(16, 16, 16),
            host=(2, 2, 1),
            options=(("chip_config_name", "megacore"),),  # two cores, one device
        ),
        Chip(
            "v5e",
            "v5e",
            peak_flops=197e12,
            memory_bytes=int(15.75 * GIB),
            memory_bandwidth=8.1e11,
            link_bandwidth=4.5e10,
            network_bandwidth=3.125e9,
            torus_dims=2,
            largest=(16, 16),
            host=(2, 2, 1),
        ),
        Chip(
            "v5p",
            "v5",
            peak_flops=459e12,
            memory_bytes=int(95.74 * GIB),
            memory_bandwidth=2.765e12,
            link_bandwidth=9e10,
            network_bandwidth=6.25e9,
            torus_dims=3,
            largest=(16, 20, 28),
            host=(2, 2, 1),
            options=(("chip_config_name", "megacore"),),
        ),
        Chip(
            "v6e",
            "v6e",
            peak_flops=918e12,
            memory_bytes=int(31.25 * GIB),
            memory_bandwidth=1.64e12,
            link_bandwidth=9e10,
            network_bandwidth=1.25e10,
            torus_dims=2,
            largest=(16, 16),
            host=(2, 2, 1),
        ),
        Chip(
            "tpu7x",
            "tpu7x",
            peak_flops=2307e12 / 2,
            memory_bytes=int(94.75 * GIB),
            memory_bandwidth=7.38e12 / 2,
            link_bandwidth=1e11 / 2,  # both devices of a chip share its links
            network_bandwidth=1.25e10 / 2,
            torus_dims=3,
            largest=(16, 24, 24),
            host=(2, 2, 1),
            devices_per_chip=2,
        ),
    )
}

# Dense bfloat16 FLOPs a second by a part of what JAX calls the device; of GPUs by their maker's data sheets.
_TPUS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e", "TPU7x": "tpu7x"}
PEAKS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12} | {
    kind: CHIPS[name].peak_flops for kind, name in _TPUS.items()
}


def peak_flops(device_kind: str) -> float | None:
    """FLOPs a second of one device in bfloat16 matrix products; None where it is not known, as of a CPU."""
    return next((peak for name, peak in PEAKS.items() if name in device_kind), None)
