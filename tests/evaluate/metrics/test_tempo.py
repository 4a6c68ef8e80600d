import pytest

from mufun_jax.evaluate.metrics.registry import score_task
from mufun_jax.evaluate.metrics.tempo import read_tempo


@pytest.mark.parametrize(
    ("text", "tempo"),
    [
        ("120", 120.0),
        ("120.", 120.0),
        ("about 120 BPM", 120.0),
        ("120bpm.", 120.0),
        ("Tempo: 120.5", 120.5),
        ("♩ = 96", 96.0),
        ("The BPM is 95", 95.0),
        ("120 beats per minute, in 4/4", 120.0),
        ("120 beats a minute", 120.0),
        ("120 in 4/4", 120.0),
        ("It is 120 BPM: yes, 120 bpm", 120.0),
        ("At 1:20 it is 90 BPM", 90.0),
        ("Track 2 has 90 BPM", 90.0),
        ("120,5", None),
        ("120,5 BPM", None),
        ("110-120 BPM", None),
        ("110–120", None),
        ("110 to 120 BPM", None),
        ("between 110 and 120 bpm", None),
        ("110 BPM or 120 BPM", None),
        ("60 or 120", None),
        ("60 BPM (120 BPM in double time)", None),
        ("in 4/4", None),
        ("fast", None),
        ("one hundred", None),
        ("0 BPM", None),
        ("123456", None),
        ("", None),
    ],
)
def test_one_tempo_is_read_or_none(text, tempo):
    assert read_tempo(text) == tempo


def test_four_per_cent_and_its_octaves():
    """Of 120: 124.8 and 115.2 are the last within 4 %; 60, 240, 360 and 40 are right by accuracy 2, 180 by none."""
    replies = ["124.8", "115.2", "124.9", "60", "62.4 BPM", "240", "360", "40", "180", "no idea"]
    scores = score_task("tempo", replies, ["120"] * 10)
    assert scores == {"n": 10.0, "accuracy_1": 0.2, "accuracy_2": 0.7, "unreadable": 1.0}

    assert score_task("tempo", ["52", "48"], ["50", "50"])["accuracy_1"] == 1.0
    assert 114.4 - 110 > 0.04 * 110, "which is rounding"
    assert score_task("tempo", ["114.4"], ["110"])["accuracy_1"] == 1.0


def test_reading_long_texts_takes_no_time():
    assert read_tempo("1" * 100_000) is None
    assert read_tempo(" -" * 50_000 + "90 BPM") == 90.0
