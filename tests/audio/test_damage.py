"""Files that end early, are damaged inside, or are not what they seem."""

import numpy as np
import pytest
import soundfile

from mufun_jax.audio import container, decoder, flac
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.config import SAMPLE_RATE
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


def test_damage_in_an_opus_of_another_rate_is_where_it_is(tmp_path):
    path = tmp_path / "song.opus"
    soundfile.write(path, music(12, SAMPLE_RATE), SAMPLE_RATE, format="OGG", subtype="OPUS")  # granules count 48,000
    stream = bytearray(path.read_bytes())
    stream[int(0.7 * len(stream))] ^= 4
    path.write_bytes(stream)
    assert 7 < float(message(path).split("damaged at ")[1].split(" s")[0]) < 9
    assert load_waveform(path, segment=(1, 6)).warnings == ()


def test_an_ogg_page_that_says_it_is_longer_than_the_file_is_damage(songs, tmp_path):
    stream = bytearray((songs / "opus").read_bytes())
    pages = [at for at in range(len(stream)) if stream[at : at + 4] == b"OggS"]
    segments = pages[6] + 26
    stream[segments : segments + 256] = b"\xff" * 256
    path = tmp_path / "song.opus"
    path.write_bytes(stream)
    assert "damaged at 3.98 s" in message(path)
    loaded = load_waveform(path, tolerate_damage=True)  # the decoder believes that the file ends there
    assert "about 2.0" in " ".join(loaded.warnings)


def test_what_follows_the_last_ogg_page_is_no_damage(songs, tmp_path):
    path = tmp_path / "song.ogg"
    path.write_bytes((songs / "ogg").read_bytes() + b"TAG" + bytes(125))
    loaded = load_waveform(path)
    assert (loaded.file_seconds, loaded.warnings) == (SECONDS, ())


def piped(stream: bytes) -> bytearray:
    """A FLAC whose header does not tell its length: 36 bits are 0."""
    open_end = bytearray(stream)
    open_end[21] &= 0xF0
    open_end[22:26] = bytes(4)
    return open_end


def test_a_damaged_flac_of_unknown_length_does_not_end_there(songs, tmp_path):
    stream = piped((songs / "flac").read_bytes())
    stream[len(stream) // 2 : len(stream) // 2 + 3000] = bytes(3000)
    path = tmp_path / "song.flac"
    path.write_bytes(stream)
    assert 2.5 < float(message(path).split("damaged at ")[1].split(" s")[0]) < 3.5
    assert load_waveform(path, tolerate_damage=True).end == pytest.approx(SECONDS, abs=0.3)


def test_a_flac_of_unknown_length_that_was_cut_off_says_so(songs, tmp_path):
    path = tmp_path / "song.flac"
    path.write_bytes(cut(bytes(piped((songs / "flac").read_bytes()))))
    loaded = load_waveform(path)
    assert 3.4 < loaded.end < 3.6  # 0.6 of its bytes
    assert "ends at " in " ".join(loaded.warnings)


def test_a_flac_that_tells_its_length_nowhere_is_refused(songs, tmp_path):
    path = tmp_path / "song.flac"
    path.write_bytes(piped((songs / "flac").read_bytes()) + bytes(2 * 1024**2))
    assert "tells its length nowhere" in message(path)


def test_only_a_frame_that_follows_another_tells_the_length_of_a_flac(songs, tmp_path):
    path = tmp_path / "song.flac"
    stream = (songs / "flac").read_bytes()
    for end in (b"\xff\xf8\xc9", bytes.fromhex("fff8c91864f9")):  # a beginning; frame 100, whole
        path.write_bytes(stream + end)
        with open(path, "rb") as file:
            assert flac.length(file) == SECONDS * 44_100


@pytest.mark.parametrize("rate", [16_000, 44_100, 96_000, 12_345])
@pytest.mark.parametrize("frames", [4_097, 100_000, 1_000_001])
def test_the_length_of_a_flac_stands_in_its_last_frame(tmp_path, rate, frames):
    path = tmp_path / "song.flac"
    random = np.random.default_rng(0)
    soundfile.write(path, random.integers(-9_000, 9_000, frames, np.int16), rate, format="FLAC")
    with open(path, "rb") as file:
        assert flac.length(file) == frames
    path.write_bytes(flac.with_length(bytes(piped(path.read_bytes())), frames))
    assert soundfile.info(path).frames == frames


def test_an_mp3_whose_header_lies_does_not_stand_beyond_its_end(songs, tmp_path):
    stream = bytearray((songs / "mp3").read_bytes())
    at = stream.index(b"Xing") + 8
    stream[at : at + 4] = (30).to_bytes(4, "big")  # frames; there are 231
    path = tmp_path / "song.mp3"
    path.write_bytes(stream[:2000] + bytes(8000) + stream[10_000:])
    assert "damaged at " in message(path)


def test_blocks_grow_again_behind_a_place_that_is_passed_after_all(songs, monkeypatch):
    expected = whole(songs / "flac")
    reads = []
    read = soundfile.SoundFile.read

    def stumbling(self, frames, **keywords):
        reads.append(frames)
        if len(reads) < 3:
            raise soundfile.LibsndfileError(39)
        return read(self, frames, **keywords)

    monkeypatch.setattr(soundfile.SoundFile, "read", stumbling)
    np.testing.assert_allclose(load_waveform(songs / "flac").samples, expected, rtol=0, atol=1e-6)
    assert len(reads) < 20, reads


def test_a_file_that_changes_while_it_is_read_is_an_error(songs, tmp_path, monkeypatch):
    path = tmp_path / "song.flac"
    path.write_bytes((songs / "flac").read_bytes())
    opened = decoder.checked_decoder

    def changing(file, name):
        sound = opened(file, name)
        path.write_bytes(b"something else")
        return sound

    monkeypatch.setattr(decoder, "checked_decoder", changing)
    message(path)
