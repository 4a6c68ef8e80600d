"""Predicted time of one run of a compiled program. It is a model, not a measurement: no TPU was asked.

Each region of the program, a loop's body or what is outside of loops, takes

    max(computing, asynchronous collectives, host transfers) + synchronous collectives

where computing is the sum over instructions of max(FLOPs / peak, bytes / memory bandwidth), and at least all bytes
of the region / memory bandwidth, since transfers between memories run beside it. So a matrix product hides its own
loads, and a scanned layer's arithmetic hides the collectives that the compiler made asynchronous; nothing else
overlaps, and what one loop's collectives could hide behind another's work is not seen.

Three constants say how much of the published rates programs reach. They are assumptions, chosen from published
experience with large dense models on TPUs (MaxText's performance tables; "How to Scale Your Model"), not fitted here.
"""

from dataclasses import dataclass
from math import fsum

from mufun_jax.plan.network import Network
from mufun_jax.plan.program import Program, Region
from mufun_jax.sharding.chips import Chip

MATMUL_EFFICIENCY = 0.8  # of the peak, in large products
ATTENTION_EFFICIENCY = 0.5  # of the peak, in attention kernels, whose softmax the matrix unit waits for
MEMORY_EFFICIENCY = 0.85  # of the memory bandwidth
HOST_BANDWIDTH = 1.6e10  # bytes a second between a chip and its host's memory, PCIe ("How to Scale Your Model")


@dataclass(frozen=True)
class RegionTime:
    """Seconds of all turns of one region, and of each term in it as if nothing overlapped."""

    name: str
    times: int
    seconds: float
    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float
    host_seconds: float

    @property
    def limit(self) -> str:
        """The longest term."""
        terms = {
            "compute": self.compute_seconds,
            "memory": self.memory_seconds,
            "interconnect": self.interconnect_seconds,
            "host": self.host_seconds,
        }
        return max(terms, key=lambda name: terms[name])


@dataclass(frozen=True)
class Estimate:
    """Predicted times of a program, by region."""

    regions: tuple[RegionTime, ...]

    @property
    def total(self) -> RegionTime:
        sums = [
            fsum(getattr(region, field) for region in self.regions)
            for field in ("seconds", "compute_seconds", "memory_seconds", "interconnect_seconds", "host_seconds")
        ]
        return RegionTime("all", 1, *sums)

    @property
    def seconds(self) -> float:
        return self.total.seconds


def estimate(program: Program, network: Network) -> Estimate:
    """Predicts one run of a program."""
    return Estimate(tuple(_region_time(region, network) for region in program.regions))


def utilization(model_flops: int, seconds: float, devices: int, chip: Chip) -> float:
    """MFU: the model's FLOPs, as a part of what all devices' peak would have done in that time."""
    return model_flops / (seconds * devices * chip.peak_flops)


def _region_time(region: Region, network: Network) -> RegionTime:
    chip = network.topology.chip
    bandwidth = MEMORY_EFFICIENCY * chip.memory_bandwidth
    computing = compute = host = 0.0
    for work in region.work:
        rate = chip.peak_flops * (ATTENTION_EFFICIENCY if work.attention else MATMUL_EFFICIENCY)
        compute += work.flops / rate
        host += work.host_bytes / HOST_BANDWIDTH
        if not work.transfer:
            computing += max(work.flops / rate, work.hbm_bytes / bandwidth)
    memory = region.hbm_bytes / bandwidth
    beside = fsum(network.seconds(each) for each in region.collectives if each.asynchronous)
    between = fsum(network.seconds(each) for each in region.collectives if not each.asynchronous)
    seconds = max(computing, memory, beside, host) + between
    turns = region.times
    return RegionTime(
        region.name, turns, turns * seconds, turns * compute, turns * memory, turns * (beside + between), turns * host
    )
