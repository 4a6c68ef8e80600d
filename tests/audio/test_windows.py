import numpy as np
import pytest

from mufun_jax.audio.windows import Hearing, count_windows, seconds_heard, split_windows, to_int16
from mufun_jax.config import SAMPLE_RATE

W = 480_000
NANO = 48_000

# (samples, windows, samples dropped)
BOUNDARIES = [
    (1, 1, 0),
    (1_600, 1, 0),
    (8_000, 1, 0),
    (W - 1, 1, 0),
    (W, 1, 0),
    (W + 1, 1, 1),
    (W + 8_000, 1, 8_000),
    (W + 8_001, 2, 0),
    (2 * W - 1, 2, 0),
    (2 * W, 2, 0),
    (2 * W + 8_000, 2, 8_000),
    (2 * W + 8_001, 3, 0),
    (13 * W, 13, 0),
    (13 * W + 7_999, 13, 7_999),
    (13 * W + 8_001, 14, 0),
]


def ramp(num_samples: int) -> np.ndarray:
    return np.arange(1, num_samples + 1, dtype=np.float32)


@pytest.mark.parametrize(("num_samples", "windows", "dropped"), BOUNDARIES)
def test_windows_at_every_boundary(num_samples, windows, dropped):
    assert count_windows(num_samples, W) == windows
    samples = ramp(num_samples)
    split = split_windows(samples, W)
    assert split.shape == (windows, W)
    assert split.dtype == np.float32
    kept = num_samples - dropped
    np.testing.assert_array_equal(split.reshape(-1)[:kept], samples[:kept])
    assert not split.reshape(-1)[kept:].any()


def test_short_windows_keep_the_same_tail_rule():
    assert [count_windows(NANO + tail, NANO) for tail in (8_000, 8_001, NANO, NANO + 8_000)] == [1, 2, 2, 2]
    # Windows no longer than the tail: whole ones still count.
    assert [count_windows(n, 4_000) for n in (1, 4_000, 7_999, 8_000, 12_001)] == [1, 1, 1, 2, 3]


def test_no_samples_is_an_error():
    with pytest.raises(ValueError, match="0 samples"):
        count_windows(0, W)


def test_int16_round_trips_every_value():
    every = np.arange(-32768, 32768).astype(np.int16)
    np.testing.assert_array_equal(to_int16(every.astype(np.float32) / 32768), every)


def test_int16_rounds_and_clips():
    samples = np.array([1.0, 1.5, -1.0, -1.2, 0.6 / 32768, -0.6 / 32768, 0.4 / 32768], np.float32)
    assert to_int16(samples).tolist() == [32767, 32767, -32768, -32768, 1, -1, 0]
    assert to_int16(np.zeros((2, 3), np.float32)).shape == (2, 3)


@pytest.mark.parametrize(
    ("seconds", "max_windows", "heard"),
    [
        (0.1, 13, Hearing(1, 0.1, 0.0)),
        (30.0, 13, Hearing(1, 30.0, 0.0)),
        (30.5, 13, Hearing(1, 30.0, 0.5)),
        (31.0, 13, Hearing(2, 31.0, 0.0)),
        (390.0, 13, Hearing(13, 390.0, 0.0)),
        (400.0, 13, Hearing(13, 390.0, 10.0)),
        (10_800.0, 13, Hearing(13, 390.0, 10_410.0)),
        (61.0, 1, Hearing(1, 30.0, 31.0)),
    ],
)
def test_seconds_heard(seconds, max_windows, heard):
    assert seconds_heard(seconds, W, max_windows) == heard


def test_seconds_heard_agrees_with_the_windows():
    for num_samples, windows, dropped in BOUNDARIES:
        heard = seconds_heard(num_samples / SAMPLE_RATE, W, 99)
        assert heard.windows == windows
        assert heard.dropped_seconds == pytest.approx(dropped / SAMPLE_RATE)
