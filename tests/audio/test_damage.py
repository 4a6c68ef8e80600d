"""Files that end early, are damaged inside, or are not what they seem."""

import time

import numpy as np
import pytest
import soundfile

from mufun_jax.audio import container
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError
from tests.audio.songs import COMPRESSED, FORMATS, SECONDS, message, music, whole


def cut(stream: bytes) -> bytes:
    return stream[: int(0.6 * len(stream))]


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_ends_early_is_used_aloud(songs, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(cut((songs / name).read_bytes()))
    loaded = load_waveform(path)
    assert 0.3 * SECONDS < loaded.file_seconds < 0.7 * SECONDS
    assert len(loaded.samples) / SAMPLE_RATE == pytest.approx(loaded.file_seconds, abs=1e-3)
    expected = whole(songs / name)[: len(loaded.samples) - 2_000]  # the resampler and the codec look ahead
    np.testing.assert_allclose(loaded.samples[: len(expected)], expected, rtol=0, atol=1e-5)
    (warning,) = loaded.warnings
    assert "what is there is used" in warning
    if name not in ("ogg", "opus"):
        assert "its header promises 6.00 s" in warning
    message(path, segment=(5, 6))


def test_an_ogg_cut_between_pages_is_noticed(songs, tmp_path):
    stream = (songs / "ogg").read_bytes()
    path = tmp_path / "song.ogg"
    path.write_bytes(stream[: stream.rindex(b"OggS")])
    assert "without an end-of-stream page" in " ".join(load_waveform(path).warnings)


def test_damage_in_a_file_smaller_than_the_decoders_buffer(write):
    path = write(music(0.6, SAMPLE_RATE, 1), subtype="PCM_16", kind="FLAC")
    stream = bytearray(path.read_bytes())
    middle = len(stream) // 3
    stream[middle : middle + 50] = bytes(50)
    path.write_bytes(stream)
    assert "damaged at " in message(path)


def test_a_tag_that_looks_like_one_mp3_frame_is_no_audio(songs, tmp_path):
    tag = b"APETAGEX" + bytes(100) + b"\xff\xfb\x90\x64" + bytes(3000)
    path = tmp_path / "song.mp3"
    path.write_bytes((songs / "mp3").read_bytes() + tag)
    assert load_waveform(path).warnings == ()
    with open(path, "rb") as file:
        damage, seconds = container.mp3_damage(file, 60.0)
    assert damage is None
    assert seconds == pytest.approx(SECONDS, abs=0.1)


def test_a_segment_is_found_where_seeking_fails(songs, monkeypatch):
    seek = soundfile.SoundFile.seek

    def failing(self, frames, whence=0):
        if frames == 83_790:  # 1.9 s, where the segment's decoding begins
            raise soundfile.LibsndfileError(39)
        return seek(self, frames, whence)

    monkeypatch.setattr(soundfile.SoundFile, "seek", failing)
    loaded = load_waveform(songs / "flac", segment=(2, 3))
    np.testing.assert_allclose(loaded.samples, whole(songs / "flac")[32_000:48_000], rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["random", "zeros", "removed"])
@pytest.mark.parametrize("name", COMPRESSED)
def test_a_damaged_middle_is_refused(songs, name, how, tmp_path):
    stream = bytearray((songs / name).read_bytes())
    middle = len(stream) // 2
    damage = {"random": np.random.default_rng(0).bytes(3000), "zeros": bytes(3000), "removed": b""}[how]
    stream[middle : middle + 3000] = damage
    path = tmp_path / name
    path.write_bytes(stream)
    said = message(path)
    assert "damaged at " in said
    assert 1.5 < float(said.split("damaged at ")[1].split(" s")[0]) < 4
    before = load_waveform(path, segment=(0, 1.25))
    np.testing.assert_allclose(before.samples, whole(songs / name)[:20_000], rtol=0, atol=1e-6)


def test_one_flipped_bit_in_an_ogg_page_is_noticed(songs, tmp_path):
    stream = bytearray((songs / "ogg").read_bytes())
    stream[len(stream) // 2] ^= 4
    path = tmp_path / "song.ogg"
    path.write_bytes(stream)
    assert "damaged at " in message(path)


def test_skipped_bytes_in_an_mp3_are_said(songs, tmp_path):
    stream = bytearray((songs / "mp3").read_bytes())
    path = tmp_path / "song.mp3"
    path.write_bytes(stream[:20_000] + b"TAG of another tool" + stream[20_000:])
    loaded = load_waveform(path, longest=5)
    assert "are no MP3 frame; the decoder skips them" in " ".join(loaded.warnings)


def test_a_wav_from_a_pipe_promises_nothing(songs, tmp_path):
    stream = bytearray((songs / "wav").read_bytes())
    at = stream.index(b"data") + 4
    stream[at : at + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "piped.wav"
    path.write_bytes(stream)
    loaded = load_waveform(path)
    assert (loaded.file_seconds, loaded.warnings) == (SECONDS, ())


# --- what nobody thought of ----------------------------------------------------------------------------------------


def mutated(stream: bytes, random: np.random.Generator) -> bytes:
    broken = bytearray(stream)
    for _ in range(random.integers(1, 3)):
        at = int(random.integers(0, len(broken))) if random.random() < 0.5 else int(random.integers(0, 200))
        size = int(random.integers(1, 64))
        match random.integers(5):
            case 0:
                broken[at : at + 1] = random.bytes(1)
            case 1:
                broken[at : at + size] = random.bytes(size)
            case 2:
                del broken[at : at + size * 8]
            case 3:
                broken[at:at] = random.bytes(size)
            case _:
                broken = broken[: max(at, 1)]
        if not broken:
            return b"\0"
    return bytes(broken)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg", "aiff"])
def test_mutated_files_give_audio_or_an_error(name, tmp_path):
    kind, subtype, rate = FORMATS[name]
    soundfile.write(tmp_path / "song", music(1, rate), rate, format=kind, subtype=subtype)
    stream = (tmp_path / "song").read_bytes()
    random = np.random.default_rng(list(name.encode()))
    path = tmp_path / "mutated"
    audio = errors = 0
    for case in range(60):
        path.write_bytes(mutated(stream, random))
        began = time.monotonic()
        try:
            loaded = load_waveform(path)
        except AudioError as error:
            assert str(error).isprintable(), case
            errors += 1
        else:
            assert np.isfinite(loaded.samples).all(), case
            assert len(loaded.samples) >= 1_600, case
            audio += 1
        assert time.monotonic() - began < 2, case
    assert audio >= 1, "the mutations leave nothing to decode"
    assert errors >= 5, "the mutations break nothing"
