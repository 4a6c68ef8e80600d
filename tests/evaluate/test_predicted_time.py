from dataclasses import replace

import pytest
from rich.console import Console

from mufun_jax.errors import ConfigError
from mufun_jax.evaluate.predicted_time import (
    H100,
    V5E_8,
    BenchmarkSet,
    Workload,
    predict_sets,
    predicted_table,
    read_seconds,
)
from mufun_jax.model.presets import preset
from mufun_jax.weights.params import abstract_params, count_params

MODEL = preset("mufun_8b")
SONGS = BenchmarkSet("songs", 600, 390.0)
SHORT = BenchmarkSet("notes", 600, 4.0)


@pytest.mark.parametrize(
    ("audio", "seconds"),
    [("30 s", 30), ("<15 s", 15), ("<10 min", 600), ("2 min", 120), ("10-30 s", 30), ("10 s, 2 min", 120)],
)
def test_durations_as_they_are_published(audio, seconds):
    assert read_seconds(audio) == seconds


def test_decoding_reads_the_decoder_for_each_token():
    """Of 100 songs, 8 tokens each: all matrices but the table of embeddings, at 85 % of 3.35 TB/s, and the cache of
    3,932 positions, 96 of 6 questions, and 64 of their answers, of 147,456 bytes each."""
    (time,) = predict_sets(MODEL, H100, [SONGS])
    decoder = 36 * (4096 * 4096 * 2 + 2 * 4096 * 1024 + 3 * 4096 * 12288) + 4096 * 151_936
    cache = (13 * 300 + 32 + 6 * (96 + 64)) * 2 * 36 * 8 * 128 * 2
    assert time.songs == 100
    assert time.decode_seconds == pytest.approx(100 * 8 * (2 * decoder + cache) / (0.85 * 3.35e12), rel=2e-3)
    bytes_of_all = 2 * count_params(abstract_params(MODEL))
    encoder_and_connector = 2 * (636e6 + 5120 * 10_240 + 10_240 * 4096)
    embeddings = 2 * 4096 * 151_936
    assert bytes_of_all - 2 * decoder == pytest.approx(encoder_and_connector + embeddings, rel=0.01)


def test_a_song_is_limited_by_arithmetic():
    """About 2 x 6.95e9 FLOPs a position of the decoder, and 13 windows of Whisper-large-v3, of 1.27 TFLOPs each forward
    over 635 million parameters and 1,500 frames, beside attention: at 80 % of the peak."""
    (time,) = predict_sets(MODEL, H100, [SONGS])
    least = (2 * 6.95e9 * 3932 + 13 * 2 * 635e6 * 1500) / (0.8 * 989.4e12)
    assert least < time.encode_seconds / 100 < 1.25 * least


def test_what_the_time_hangs_on():
    whole, short = predict_sets(MODEL, V5E_8, [SONGS, SHORT])
    assert short.encode_seconds < whole.encode_seconds / 8, "one window, not thirteen"
    (longer,) = predict_sets(MODEL, V5E_8, [replace(SONGS, seconds=600.0)])
    assert longer.seconds == whole.seconds, "no more than 390 s is heard"
    (half,) = predict_sets(MODEL, replace(V5E_8, devices=4), [SONGS])
    assert half.seconds == pytest.approx(2 * whole.seconds)
    (full,) = predict_sets(MODEL, V5E_8, [SONGS], Workload(decoded=1.0))
    assert full.decode_seconds == pytest.approx(8 * whole.decode_seconds)
    assert (full.encode_seconds, full.read_seconds) == (whole.encode_seconds, whole.read_seconds)
    (alone,) = predict_sets(MODEL, V5E_8, [SONGS], Workload(questions_a_song=1.0))
    assert alone.encode_seconds == pytest.approx(6 * whole.encode_seconds)
    assert alone.seconds > 3 * whole.seconds


def test_a_model_that_does_not_fit_is_refused():
    with pytest.raises(
        ConfigError, match=r"^v5e-8: weights and the cache of a song are 18\.\d GB, more than the 16\.9"
    ):
        predict_sets(MODEL, replace(V5E_8, weights="bfloat16"), [SONGS])


def test_the_table_adds_up():
    times = predict_sets(MODEL, V5E_8, [SONGS, SHORT])
    console = Console(width=80, record=True)
    console.print(predicted_table(times))
    last = [line.split() for line in console.export_text().splitlines() if line.strip()][-1]
    assert last[:3] == ["all", "1200", "200"]
    parts = [(time.encode_seconds, time.read_seconds, time.decode_seconds) for time in times]
    assert [float(word) for word in last[3:6]] == pytest.approx(
        [sum(part) for part in zip(*parts, strict=True)], abs=0.06
    )
    assert float(last[-1]) == pytest.approx(sum(map(sum, parts)), abs=0.06)
    assert float(last[-1]) == pytest.approx(sum(time.seconds for time in times), abs=0.06)
