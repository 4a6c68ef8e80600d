"""Audio as users have it: a path, the bytes of a file, samples with their rate. The model hears the same."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mufun_jax.errors import AudioError, UserError
from mufun_jax.generate.question import make_question, read_audio

RATE = 16_000
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, (2 * RATE, 2)).astype(np.float32)


def windows_of(model, audio):
    prompt = model.listener.prompt(make_question("key?", audio))
    return prompt.windows, prompt.heard[0]


def file_bytes(samples: np.ndarray, rate: int, **options) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, samples, rate, format="WAV", **options)
    return written.getvalue()


def test_paths_bytes_and_arrays_are_heard_alike(model, tmp_path):
    path = tmp_path / "song.wav"
    soundfile.write(path, NOISE, RATE, subtype="FLOAT")
    expected, heard = windows_of(model, path)
    assert heard.file == str(path)
    np.testing.assert_allclose(expected[0], NOISE[:RATE].mean(1), rtol=0, atol=1e-7)
    for audio in (str(path), path.read_bytes(), (NOISE, RATE), (NOISE.T, RATE), (NOISE.astype(np.float64), RATE)):
        windows, heard = windows_of(model, audio)
        np.testing.assert_array_equal(windows, expected)
        assert heard.file == (audio if isinstance(audio, str) else "song 1")
        assert (heard.file_seconds, heard.seconds_used, heard.windows) == (2.0, 2.0, 2)


def test_integers_are_full_scale_at_their_end_and_other_rates_are_resampled(model):
    for dtype in (np.int16, np.int32):
        full = np.iinfo(dtype).max
        windows, _ = windows_of(model, (np.full(RATE, full // 2 + 1, dtype), RATE))
        np.testing.assert_allclose(windows[0], 0.5, atol=1e-4)
    t = np.arange(44_100) / 44_100
    windows, heard = windows_of(model, (np.sin(2 * np.pi * 440 * t), 44_100))
    assert heard.seconds_used == 1.0
    expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(windows[0][200:-200], expected[200:-200], atol=1e-3)


def test_lists_of_songs_keep_their_kinds_and_order(model, song):
    data = file_bytes(NOISE[:8_000], RATE, subtype="FLOAT")
    files = read_audio([song(1.0), data, (NOISE[:, 0], RATE)])
    assert files[0] == Path(song(1.0)) and files[1] == data and isinstance(files[2], bytes)
    prompt = model.listener.prompt(make_question("<audio> <audio> <audio> Which?", [song(1.0), data, (NOISE, RATE)]))
    assert [heard.file for heard in prompt.heard] == [song(1.0), "song 2", "song 3"]
    assert read_audio(None) == ()
    assert len(read_audio(((NOISE, RATE), (NOISE, RATE)))) == 2


def test_a_song_that_is_heard_again_is_not_decoded_again(model, monkeypatch):
    data = file_bytes(NOISE, RATE)
    first = model.listener.prompt(make_question("key?", data))
    monkeypatch.setattr("mufun_jax.generate.prompt.load_waveform", None)
    again = model.listener.prompt(make_question("tempo?", data))
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.windows, first.windows)


@pytest.mark.parametrize(
    "audio, error, words",
    [
        (b"", AudioError, "song 1: empty audio file"),
        (b"no audio at all", AudioError, "song 1: cannot be decoded"),
        ([b"no audio", b""], AudioError, "song 1: cannot be decoded"),
        ((NOISE, 44_100.5), AudioError, "song 1: the sample rate of an array is 44100.5"),
        ((NOISE, 3), AudioError, "the sample rate of an array is 3; give Hz from 1000"),
        ((NOISE.astype(np.complex64), RATE), AudioError, "an array of complex64; give floats, int16 or int32"),
        ((NOISE > 0, RATE), AudioError, "an array of bool"),
        ((np.zeros((0,), np.float32), RATE), AudioError, r"an array of shape \(0,\)"),
        ((np.zeros((2, 3, 4), np.float32), RATE), AudioError, r"an array of shape \(2, 3, 4\)"),
        ((np.full(RATE, np.nan, np.float32), RATE), AudioError, "song 1: NaN or infinity at 0.000 s"),
        ((NOISE[:100], RATE), AudioError, "song 1: only 0.00625 s"),
    ],
)
def test_what_is_no_audio_is_named(model, audio, error, words):
    count = len(audio) if isinstance(audio, list) else 1
    with pytest.raises(error, match=words):
        model.listener.prompt(make_question("<audio>" * count + " key?", audio))


@pytest.mark.parametrize(
    "audio, words",
    [
        (NOISE, "song 1 is a ndarray; give a path, the bytes of a file, or"),
        (17, "song 1 is a int"),
        (["a.wav", None], "song 2 is a NoneType"),
        ((RATE, NOISE), "song 1 is a tuple"),
    ],
)
def test_other_things_are_refused(audio, words):
    with pytest.raises(UserError, match=words):
        read_audio(audio)
