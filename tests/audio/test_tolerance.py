"""Damage that is tolerated: what can be decoded is joined, and the seconds that are lost are said."""

import re

import numpy as np
import pytest
import soundfile

from mufun_jax.audio import decoder
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.config import SAMPLE_RATE
from tests.audio.songs import COMPRESSED, FORMATS, SECONDS, message, whole

MELODY_SECONDS = 6


@pytest.fixture(scope="module")
def melodies(tmp_path_factory):
    """Notes at random, in every compressed format: no part is like another, so that it can be found again."""
    folder = tmp_path_factory.mktemp("melodies")
    random = np.random.default_rng(1)
    for name in COMPRESSED:
        kind, subtype, rate = FORMATS[name]
        t = np.arange(rate // 10) / rate
        pitches = 110 * 2 ** random.uniform(0, 4, (10 * MELODY_SECONDS, 3))
        notes = [np.exp(-20 * t) * np.sin(2 * np.pi * pitch[:, None] * t).sum(0) for pitch in pitches]
        soundfile.write(folder / name, 0.2 * np.concatenate(notes), rate, format=kind, subtype=subtype)
    return folder


def damaged(stream: bytes, how: str, at: float) -> bytes:
    middle = int(at * len(stream))
    damage = {"random": np.random.default_rng(0).bytes(3000), "zeros": bytes(3000), "removed": b""}[how]
    return stream[:middle] + damage + stream[middle + 3000 :]


def place_of(part: np.ndarray, samples: np.ndarray) -> int:
    """Where in the samples the part stands."""
    products = np.fft.irfft(np.fft.rfft(samples) * np.conj(np.fft.rfft(part, len(samples))), len(samples))
    place = int(np.argmax(products[: len(samples) - len(part) + 1]))
    assert np.corrcoef(part, samples[place : place + len(part)])[0, 1] > 0.9
    return place


def seconds_lost(warnings: tuple[str, ...]) -> tuple[float, float]:
    (warning,) = warnings
    found = re.search(r"damaged at (\S+) s; about (\S+) s are lost, and the rest is joined$", warning)
    assert found is not None, warning
    return float(found[1]), float(found[2])


@pytest.mark.parametrize("how", ["random", "zeros", "removed"])
@pytest.mark.parametrize("name", COMPRESSED)
def test_what_is_before_and_after_is_joined(melodies, name, how, tmp_path):
    path = tmp_path / name
    path.write_bytes(damaged((melodies / name).read_bytes(), how, 0.5))
    assert "damaged at " in message(path)
    loaded = load_waveform(path, tolerate_damage=True)
    expected = whole(melodies / name)
    where, lost = seconds_lost(loaded.warnings)
    assert 1.5 < where < 4
    before = int((where - 0.2) * SAMPLE_RATE)
    np.testing.assert_allclose(loaded.samples[:before], expected[:before], rtol=0, atol=1e-5)
    tail = loaded.samples[-SAMPLE_RATE:-2_000]
    missing = (place_of(tail, expected) - (len(loaded.samples) - SAMPLE_RATE)) / SAMPLE_RATE
    assert 0 < missing <= 2.1
    assert lost == pytest.approx(missing, abs=0.3)
    assert loaded.end == pytest.approx(loaded.file_seconds, abs=1e-3)
    assert loaded.file_seconds == pytest.approx(len(expected) / SAMPLE_RATE - missing, abs=0.05)


@pytest.mark.parametrize("name", COMPRESSED)
def test_what_follows_takes_the_place_of_what_is_lost(melodies, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(damaged((melodies / name).read_bytes(), "zeros", 0.5))
    loaded = load_waveform(path, longest=4.5, tolerate_damage=True)
    where, lost = seconds_lost(loaded.warnings)
    assert 1.5 < where < 4
    assert 0.19 < lost < 2.1


@pytest.mark.parametrize("name", ["flac", "mp3"])
def test_every_damage_is_counted(melodies, name, tmp_path):
    stream = (melodies / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(damaged(stream, "zeros", 0.3))
    once = load_waveform(path, tolerate_damage=True)
    path.write_bytes(damaged(damaged(stream, "zeros", 0.3), "zeros", 0.6))
    twice = load_waveform(path, tolerate_damage=True)
    assert len(twice.samples) < len(once.samples) - 0.05 * SAMPLE_RATE
    assert seconds_lost(twice.warnings)[1] > seconds_lost(once.warnings)[1] + 0.05


def test_a_file_damaged_all_over_is_given_up_aloud(melodies, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "DAMAGE_LIMIT", 1)
    path = tmp_path / "song.flac"
    path.write_bytes(damaged(damaged((melodies / "flac").read_bytes(), "zeros", 0.3), "zeros", 0.6))
    loaded = load_waveform(path, tolerate_damage=True)
    assert loaded.end < 0.7 * MELODY_SECONDS
    assert seconds_lost(loaded.warnings)[1] == pytest.approx(MELODY_SECONDS - loaded.end, abs=0.02)


def test_a_flac_with_rubbish_for_an_end(melodies, tmp_path):
    stream = (melodies / "flac").read_bytes()
    path = tmp_path / "song.flac"
    path.write_bytes(stream[: len(stream) // 2] + bytes(len(stream)))
    for tolerate in (False, True):
        loaded = load_waveform(path, tolerate_damage=tolerate)
        assert 2.5 < loaded.end < 3.5
        assert f"ends at {loaded.end:.2f} s, though its header promises 6.00 s" in " ".join(loaded.warnings)


def test_a_segment_loses_what_is_damaged_in_it(melodies, tmp_path):
    path = tmp_path / "song.flac"
    path.write_bytes(damaged((melodies / "flac").read_bytes(), "zeros", 0.5))
    expected = whole(melodies / "flac")
    for segment in ((0.5, 2), (4.5, 5.5)):
        clean = load_waveform(path, segment=segment, tolerate_damage=True)
        begin, end = (round(SAMPLE_RATE * second) for second in segment)
        np.testing.assert_allclose(clean.samples, expected[begin:end], rtol=0, atol=1e-5)
        assert (clean.start, clean.end, clean.warnings) == (*segment, ())
    around = load_waveform(path, segment=(2, 5), tolerate_damage=True)
    lost = seconds_lost(around.warnings)[1]
    assert around.end == pytest.approx(5 - lost, abs=0.15)  # what is decoded beyond a segment's end moves into it


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_whole_stays_as_it_is(songs, name):
    loaded = load_waveform(songs / name, tolerate_damage=True)
    np.testing.assert_array_equal(loaded.samples, load_waveform(songs / name).samples)
    assert (loaded.file_seconds, loaded.warnings) == (SECONDS, ())


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_was_cut_off_is_used_the_same(songs, name, tmp_path):
    stream = (songs / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(stream[: int(0.6 * len(stream))])
    strict, tolerant = load_waveform(path), load_waveform(path, tolerate_damage=True)
    np.testing.assert_array_equal(strict.samples, tolerant.samples)
    assert (strict.file_seconds, strict.warnings) == (tolerant.file_seconds, tolerant.warnings)


def test_samples_that_are_no_numbers_are_not_tolerated(write):
    samples = np.full(SAMPLE_RATE, 0.1)
    samples[8_000] = np.nan
    assert "NaN or infinity at 0.500 s" in message(write(samples), tolerate_damage=True)
