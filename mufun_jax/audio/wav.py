"""Samples as the bytes of a WAV file: what is given as an array goes the way of every file."""

import io

import numpy as np
import soundfile

from mufun_jax.audio.decoder import CHANNEL_LIMIT, RATES
from mufun_jax.errors import AudioError

_SUBTYPES = {"int16": "PCM_16", "int32": "PCM_32"}  # others become floats


def wav_bytes(samples: np.ndarray, rate: int | float, name: str) -> bytes:
    """A WAV file of samples at `rate` Hz: [samples], [samples, channels] or [channels, samples].

    Of two axes the shorter one is the channels. Floats are full scale at 1.0, integers at the end of their range.

    Raises:
        AudioError: the array has another shape or dtype, is empty, or the rate is none.
    """
    if not isinstance(rate, int | float | np.number) or int(rate) != rate or not RATES[0] <= rate <= RATES[1]:
        raise AudioError(f"{name}: the sample rate of an array is {rate!r}; give Hz from {RATES[0]} to {RATES[1]}")
    if samples.dtype.kind not in "f" and samples.dtype.name not in _SUBTYPES:
        raise AudioError(f"{name}: an array of {samples.dtype}; give floats, int16 or int32")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    if samples.ndim not in (1, 2) or not samples.size or (samples.ndim == 2 and samples.shape[1] > CHANNEL_LIMIT):
        raise AudioError(
            f"{name}: an array of shape {samples.shape}; give samples, or samples and at most {CHANNEL_LIMIT} channels"
        )
    written = io.BytesIO()
    if samples.dtype.kind == "f":
        samples = samples.astype(np.float32)
    soundfile.write(written, samples, int(rate), _SUBTYPES.get(samples.dtype.name, "FLOAT"), format="WAV")
    return written.getvalue()
