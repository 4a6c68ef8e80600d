"""Cutting samples into the encoder's windows, and counting what is heard and what is not."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16

from mufun_jax.config import SAMPLE_RATE

DROPPED_TAIL = 8_000  # samples; a tail this short (0.5 s) gets no window of its own, as in the original


def count_windows(num_samples: int, window_samples: int) -> int:
    """How many windows so many samples fill; at least one.

    With windows of 480,000 (30 s): 480,000 -> 1;  488,000 -> 1, the tail of 8,000 is dropped;  488,001 -> 2.
    """
    if num_samples < 1 or window_samples < 1:
        raise ValueError(f"no windows: {num_samples} samples, windows of {window_samples}")
    whole, tail = divmod(num_samples, window_samples)
    return max(1, whole + (tail > DROPPED_TAIL))


def split_windows(
    samples: Float32[np.ndarray, " samples"], window_samples: int
) -> Float32[np.ndarray, "windows window_samples"]:
    """Windows that follow one another without overlap. The last is padded with zeros or loses a short tail."""
    windows = np.zeros((count_windows(len(samples), window_samples), window_samples), np.float32)
    used = min(len(samples), windows.size)
    windows.reshape(-1)[:used] = samples[:used]
    return windows


def to_int16(samples: Float32[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
    """Samples for the training batch: round(32768 x), clipped, so that 16-bit files come through unchanged."""
    return np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)


@dataclass(frozen=True)
class Hearing:
    """How much of a file the model hears. `used_seconds + dropped_seconds` is what was asked for."""

    windows: int
    used_seconds: float
    dropped_seconds: float


def seconds_heard(requested_seconds: int | float, window_samples: int, max_windows: int) -> Hearing:
    """What of so many seconds reaches the model when it hears at most `max_windows` windows, whole ones first."""
    num_samples = max(1, round(requested_seconds * SAMPLE_RATE))
    windows = min(count_windows(num_samples, window_samples), max_windows)
    used = min(num_samples, windows * window_samples) / SAMPLE_RATE
    return Hearing(windows, used, max(0.0, requested_seconds - used))
