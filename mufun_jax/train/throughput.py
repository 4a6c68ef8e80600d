"""How fast training is: tokens and seconds of audio a second, MFU, memory."""

import resource
import sys
from collections.abc import Sequence
from typing import Any

from mufun_jax.config import ModelConfig, StageConfig
from mufun_jax.model.flops import train_flops
from mufun_jax.sharding.chips import GIB, peak_flops


class Throughput:
    """Rates of a stage on some devices."""

    def __init__(self, model: ModelConfig, stage: StageConfig, devices: Sequence[Any]):
        self._flops = train_flops(model, stage).total
        peaks = [peak_flops(device.device_kind) for device in devices]
        self._peak = sum(peak for peak in peaks if peak is not None) if None not in peaks else None

    def rates(self, seconds: float, positions: float, audio_seconds: float) -> dict[str, float]:
        """Of a step that took so long. MFU only where the peak of the devices is known, which a CPU's is not."""
        rates = {"tokens_per_second": positions / seconds, "audio_seconds_per_second": audio_seconds / seconds}
        return rates if self._peak is None else {**rates, "mfu": self._flops / seconds / self._peak}


def peak_memory(device: Any) -> float:
    """GiB that a device held at most so far; of a CPU device, this process, its programs and libraries included."""
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / GIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
