"""Log-mel against `transformers.WhisperFeatureExtractor`: its float64 numpy path and its float32 torch path."""

import jax
import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from mufun_jax.audio.log_mel import log_mel_spectrogram, mel_filters
from mufun_jax.audio.windows import to_int16
from mufun_jax.config import SAMPLE_RATE

# The promise is 1e-4 to both. To float64 we measure 3e-6 and hold 1e-5, so that a return of float32 cancellation
# (rfft: 8e-5 on `music`, 3e-4 on chords) is seen.
TO_FLOAT64 = 1e-5
TO_TORCH = 1e-4

log_mel = jax.jit(log_mel_spectrogram, static_argnums=1)


def signals(seconds: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    n = seconds * SAMPLE_RATE
    t = np.arange(n) / SAMPLE_RATE

    def sine(hertz: float) -> np.ndarray:
        return np.sin(2 * np.pi * hertz * t)

    clicks = np.zeros(n)
    clicks[::3777] = 1.0
    partials = [(110, 2), (220, 3), (331, 4), (1760, 5), (3520, 9)]
    music = sum((sine(f) * np.exp(-(t % 0.5) * decay) for f, decay in partials), start=np.zeros(n)) / 5
    music += 1e-4 * random.standard_normal(n)
    padded = np.where(t < 0.55 * seconds, music, 0)
    short = np.where(t < 0.1, music, 0)
    all_signals = {
        "noise": 0.3 * random.standard_normal(n),
        "quiet noise": 1e-5 * random.standard_normal(n),
        "silence": np.zeros(n),
        "constant": np.ones(n),
        "sine 50": sine(50),
        "sine 440": sine(440),
        "sine 7900": sine(7900),
        "square": np.sign(sine(440) + 1e-3),
        "clicks": clicks,
        "sweep": np.sin(2 * np.pi * (100 + 7000 / seconds / 2 * t) * t),
        "music": music,
        "fading music": music * np.exp(-4 * t),
        "padded music": padded,
        "0.1 s": short,
        "overs": 3.7 * sine(440),
        "edges": np.where((t < 0.01) | (t > seconds - 0.01), random.standard_normal(n), 0),
    }
    return {name: x.astype(np.float32) for name, x in all_signals.items()}


def reference(samples: np.ndarray, mel_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """[windows, frames, mel_bins] by numpy and by torch."""
    extractor = WhisperFeatureExtractor(feature_size=mel_bins, chunk_length=samples.shape[1] // SAMPLE_RATE)
    by_numpy = extractor._np_extract_fbank_features(samples, "cpu")
    by_torch = extractor(list(samples), sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
    return by_numpy.transpose(0, 2, 1), by_torch.transpose(0, 2, 1)


def assert_close(names, ours, theirs, tolerance):
    errors = {name: float(np.abs(a - b).max()) for name, a, b in zip(names, ours, theirs, strict=True)}
    assert ours.shape == theirs.shape
    assert max(errors.values()) <= tolerance, errors


@pytest.mark.parametrize(("mel_bins", "seconds"), [(80, 3), (128, 5), (80, 30), (128, 30)])
def test_equals_whisper(mel_bins, seconds):
    named = signals(seconds)
    samples = np.stack(list(named.values()))
    ours = np.asarray(log_mel(samples, mel_bins))
    assert ours.dtype == np.float32
    assert ours.shape == (len(named), 100 * seconds, mel_bins)
    by_numpy, by_torch = reference(samples, mel_bins)
    assert_close(named, ours, by_numpy, TO_FLOAT64)
    assert_close(named, ours, by_torch, TO_TORCH)


@pytest.mark.parametrize(("mel_bins", "seconds"), [(80, 3), (128, 30)])
def test_int16_equals_whisper_on_the_same_samples(mel_bins, seconds):
    named = signals(seconds)
    sent = to_int16(np.stack(list(named.values())))
    ours = np.asarray(log_mel(sent, mel_bins))
    meant = sent.astype(np.float32) / 32768
    np.testing.assert_allclose(ours, np.asarray(log_mel(meant, mel_bins)), rtol=0, atol=1e-6)
    by_numpy, by_torch = reference(meant, mel_bins)
    assert_close(named, ours, by_numpy, TO_FLOAT64)
    assert_close(named, ours, by_torch, TO_TORCH)


def test_quiet_bins_beside_loud_chords():
    """Pure chords at full scale over a faint floor. PyTorch in float32 is itself 4e-4 from float64 here."""
    chords = []
    t = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    for seed in range(16):
        random = np.random.default_rng(seed)
        tones = random.uniform(40, 7900, random.integers(1, 6))
        chord = np.sum([np.sin(2 * np.pi * tone * t + random.uniform(0, 6)) for tone in tones], axis=0)
        floor = 10 ** random.uniform(-5, -3.2) * random.standard_normal(len(t))
        chords.append((chord / np.abs(chord).max() + floor).astype(np.float32))
    samples = np.stack(chords)
    by_numpy, _ = reference(samples, 128)
    assert_close(range(16), np.asarray(log_mel(samples, 128)), by_numpy, TO_FLOAT64)


def test_a_window_does_not_depend_on_its_neighbours():
    samples = np.stack(list(signals(3).values()))
    together = np.asarray(log_mel(samples, 80))
    alone = np.concatenate([np.asarray(log_mel(window[None], 80)) for window in samples])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_a_length_that_is_no_whole_number_of_hops():
    samples = signals(3)["music"][None, : 16_000 + 77]
    extractor = WhisperFeatureExtractor(feature_size=80)
    theirs = extractor._np_extract_fbank_features(samples, "cpu").transpose(0, 2, 1)
    ours = np.asarray(log_mel(samples, 80))
    assert_close(["77"], ours, theirs, TO_FLOAT64)


@pytest.mark.parametrize("mel_bins", [80, 128])
def test_mel_filters(mel_bins):
    theirs = WhisperFeatureExtractor(feature_size=mel_bins).mel_filters
    np.testing.assert_allclose(mel_filters(mel_bins), theirs, rtol=0, atol=1e-12)
