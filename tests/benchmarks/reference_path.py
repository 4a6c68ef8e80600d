"""The reference's path from audio files to features, taken at every step: ffmpeg, resampling, Whisper's log-mel."""

import subprocess
from functools import cache
from math import gcd
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly
from transformers import WhisperFeatureExtractor

from mufun_jax.config import SAMPLE_RATE

WINDOW_SECONDS = 30


def limit_threads() -> None:
    """One thread a process: processes, not threads, are what share the cores."""
    torch.set_num_threads(1)


@cache
def _extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=128)


def extract(path: Path) -> int:
    """Decodes a file at its own rate, mixes, resamples to 16 kHz, and computes every window's features.

    Returns the number of windows.
    """
    rate = soundfile.info(path).samplerate
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-threads", "1", "-i", str(path)]
    decoded = subprocess.run([*command, "-ac", "1", "-f", "f32le", "-"], check=True, stdout=subprocess.PIPE)
    divisor = gcd(rate, SAMPLE_RATE)
    samples = np.frombuffer(decoded.stdout, np.float32)
    samples = resample_poly(samples, SAMPLE_RATE // divisor, rate // divisor)
    size = WINDOW_SECONDS * SAMPLE_RATE
    windows = [samples[start : start + size] for start in range(0, len(samples), size)]
    made = _extractor()(windows, sampling_rate=SAMPLE_RATE, return_tensors="pt", device="cpu")
    assert made["input_features"].shape[1:] == (128, 3000)
    return len(windows)
