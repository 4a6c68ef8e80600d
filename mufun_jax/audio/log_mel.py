"""Whisper's log-mel spectrogram, on the device, exact to about 3e-6 in float32.

The eight decades that Whisper keeps below the loudest bin are more than a float32 Fourier transform resolves next to
a full-scale tone: `rfft` is wrong there by up to 3e-4 of the output's scale, and so is PyTorch's (4e-4). Here
the large terms are summed without any rounding instead: samples and transform are each split into a coarse part
of 8 bits and a fine rest,

    x C  =  hi(x) hi(C)  +  (hi(x) lo(C) + lo(x) C)

and hi(x) hi(C) is a sum of small whole numbers, exact in float32 (and each factor exact in bfloat16). The other
two products are 128 times smaller, and so is their rounding. Everything is a matrix product, at home on any device.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int16

from mufun_jax.config import HOP_SAMPLES, SAMPLE_RATE

N_FFT = 400
QUARTER = N_FFT // 4
COARSE_BITS = 7  # of magnitude, beside the sign
FLOOR = 1e-10  # of mel power, before the logarithm
RANGE = 8.0  # decades kept below the loudest bin of a window


def log_mel_spectrogram(
    samples: Float32[Any, "windows samples"] | Int16[Any, "windows samples"], mel_bins: int
) -> Float32[Array, "windows frames mel_bins"]:
    """Log-mel features of 16 kHz windows, each normalised by itself; one frame for every 160 samples.

    As `transformers.WhisperFeatureExtractor`: n_fft 400, periodic Hann window, reflected edges, the last frame left
    out, log10 of slaney mel bins clamped at 1e-10, then max(x, loudest - 8), then (x + 4) / 4. int16 is full scale
    at 32768.
    """
    assert samples.shape[-1] > N_FFT // 2, samples.shape  # the reflection needs as much
    samples = jnp.asarray(samples)
    if samples.dtype == jnp.int16:
        samples = samples.astype(jnp.float32) / 32768
    power_low, power_high = _power_spectrum(samples)
    # Bins 100 to 200 come mirrored, 200 first, and bin 100 is in both halves: the second does not count it.
    filters = mel_filters(mel_bins).astype(np.float32)
    filters_high = filters[QUARTER:][::-1].copy()
    filters_high[-1] = 0
    mel = _product(power_low, filters[: QUARTER + 1]) + _product(power_high, filters_high)
    log_mel = jnp.log10(jnp.maximum(mel, FLOOR))
    loudest = log_mel.max(axis=(1, 2), keepdims=True)
    return (jnp.maximum(log_mel, loudest - RANGE) + 4) / 4


@functools.cache
def mel_filters(mel_bins: int) -> np.ndarray:
    """Slaney's triangular filters of equal area: [201 frequencies, mel_bins], float64.

    Malcolm Slaney, Auditory Toolbox (1998): linear below 1 kHz (200/3 Hz a mel), above it 27 mels for each factor
    of 6.4.
    """
    highest = 15 + 27 * np.log(SAMPLE_RATE / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, highest, mel_bins + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, N_FFT // 2 + 1)[:, None]
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((frequencies - lower) / (centre - lower), (upper - frequencies) / (upper - centre))
    return np.maximum(triangles, 0) * 2 / (upper - lower)


def _power_spectrum(samples: jax.Array) -> tuple[jax.Array, jax.Array]:
    """|windowed DFT|^2: bins 0 to 100 and bins 200 down to 100, each [windows, frames, 101].

    Cosines are even and sines odd about the middle of the frame, which halves the sums; and bin 200 - k differs from
    bin k only in the sign of the even or odd samples, which halves them again.
    """
    coarse, fine = _split_samples(samples)
    coarse, fine = _folded_frames(coarse), _folded_frames(fine)
    (cos_even, cos_odd), (sin_even, sin_odd) = _transforms()

    def transform(part: int, tables: tuple[np.ndarray, np.ndarray]) -> tuple[jax.Array, jax.Array]:
        hi, lo = tables
        exact = _product(coarse[part], hi)
        return exact, _product(coarse[part], lo) + _product(fine[part], hi + lo)

    def butterfly(even: tuple[jax.Array, jax.Array], odd: tuple[jax.Array, jax.Array]):
        # The exact parts meet first: where they cancel, they cancel exactly.
        return (even[0] + odd[0]) + (even[1] + odd[1]), (even[0] - odd[0]) + (even[1] - odd[1])

    real, real_mirrored = butterfly(transform(0, cos_even), transform(1, cos_odd))
    imag, imag_mirrored = butterfly(transform(2, sin_even), transform(3, sin_odd))
    return real**2 + imag**2, real_mirrored**2 + imag_mirrored**2


def _split_samples(samples: jax.Array) -> tuple[jax.Array, jax.Array]:
    """samples = coarse + fine, coarse a whole number (128 at most) of steps that fit the window's peak."""
    peak = jnp.maximum(jnp.abs(samples).max(axis=-1, keepdims=True), 1e-20)
    # The largest power of two up to the peak: a float32 without its mantissa.
    exponent = jax.lax.bitcast_convert_type(peak, jnp.int32) & 0x7F800000
    step = jax.lax.bitcast_convert_type(exponent, jnp.float32) / 2 ** (COARSE_BITS - 1)
    coarse = jnp.round(samples / step) * step
    return coarse, samples - coarse


def _folded_frames(samples: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Frames of 400 every 160 samples, folded about sample 200: (sums of the even and of the odd samples, differences
    of the even and of the odd samples), each [windows, frames, 100].

    A frame is two and a half hops, so frames are cut from shifted blocks of one hop: no gather.
    """
    windows, frames = samples.shape[0], samples.shape[1] // HOP_SAMPLES
    half = N_FFT // 2
    padded = jnp.pad(samples, ((0, 0), (half, half)), mode="reflect")
    # Three hops for the last frame; the last half hop of them is not read.
    padded = jnp.pad(padded, ((0, 0), (0, HOP_SAMPLES)))[:, : (frames + 2) * HOP_SAMPLES]
    hops = padded.reshape(windows, frames + 2, HOP_SAMPLES // 2, 2)

    def frame(parity: int) -> jax.Array:
        x = hops[..., parity]
        last = N_FFT // 2 - HOP_SAMPLES
        return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:, :last]], axis=-1)

    even, odd = frame(0), frame(1)
    # Sample 0 meets no other and has weight 0; sample 200 meets itself, and `_transforms` halves its weight.
    even_rise, even_fall = even[..., 1 : QUARTER + 1], even[..., QUARTER:][..., ::-1]
    odd_rise, odd_fall = odd[..., :QUARTER], odd[..., QUARTER:][..., ::-1]
    return even_rise + even_fall, odd_rise + odd_fall, even_rise - even_fall, odd_rise - odd_fall


@functools.cache
def _transforms():
    """((cosines of even, of odd samples), (sines of even, of odd samples)), each (hi, lo) of [100 samples, 101 bins].

    The Hann window is in them.
    """

    def split(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hi = np.round(table * 2**COARSE_BITS) / 2**COARSE_BITS
        return hi.astype(np.float32), (table - hi).astype(np.float32)

    even, odd = np.arange(2, N_FFT // 2 + 1, 2), np.arange(1, N_FFT // 2, 2)
    tables = []
    for wave in (np.cos, np.sin):
        for n in (even, odd):
            hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)
            weight = np.where(n == N_FFT // 2, hann / 2, hann)
            # n k modulo 400: the angle stays small and exact.
            angle = 2 * np.pi * (np.outer(n, np.arange(QUARTER + 1)) % N_FFT) / N_FFT
            tables.append(split(weight[:, None] * wave(angle)))
    return (tables[0], tables[1]), (tables[2], tables[3])


def _product(x: jax.Array, table: np.ndarray) -> jax.Array:
    """True float32 on every device: a TPU's default is one pass of bfloat16, a GPU's TensorFloat-32."""
    return jnp.matmul(x, table, precision=jax.lax.Precision.HIGHEST)
