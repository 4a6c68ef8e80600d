"""One song in every format, and what the tests of its decoding share."""

import numpy as np
import pytest
import soundfile
import soxr

from mufun_jax.audio.waveform import load_waveform
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError

# name: (kind of file, subtype, sample rate)
FORMATS = {
    "wav": ("WAV", "PCM_16", 44_100),
    "flac": ("FLAC", "PCM_16", 44_100),
    "mp3": ("MP3", "MPEG_LAYER_III", 44_100),
    "ogg": ("OGG", "VORBIS", 44_100),
    "opus": ("OGG", "OPUS", 48_000),
    "aiff": ("AIFF", "PCM_24", 44_100),
}
COMPRESSED = ["flac", "mp3", "ogg", "opus"]
SECONDS = 6


def music(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    t = np.arange(round(seconds * rate)) / rate
    random = np.random.default_rng(0)
    tones = [0.3 * np.sin(2 * np.pi * 220 * (channel + 1) * t * (1 + 0.01 * t)) for channel in range(channels)]
    return (np.stack(tones, 1) + 0.02 * random.standard_normal((len(t), channels))).astype(np.float32)


def whole(path) -> np.ndarray:
    """The file by the shortest way there is."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, SAMPLE_RATE)


def message(path, **arguments) -> str:
    with pytest.raises(AudioError) as caught:
        load_waveform(path, **arguments)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(str(path))
    return said
