import os
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from mufun_jax.audio import decoder, waveform
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError
from tests.audio.songs import FORMATS, SECONDS, message, music, whole

# --- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_equals_one_shot_decoding(songs, name):
    expected = whole(songs / name)
    loaded = load_waveform(songs / name)
    assert loaded.samples.dtype == np.float32
    assert loaded.samples.shape == expected.shape
    np.testing.assert_allclose(loaded.samples, expected, rtol=0, atol=1e-6)
    assert (loaded.file_seconds, loaded.start, loaded.end, loaded.warnings) == (SECONDS, 0.0, SECONDS, ())


@pytest.mark.parametrize("name", FORMATS)
def test_a_segment_is_a_slice_of_the_resampled_file(songs, name):
    expected = whole(songs / name)
    loaded = load_waveform(songs / name, segment=(2, 3.21))
    np.testing.assert_allclose(loaded.samples, expected[32_000:51_360], rtol=0, atol=1e-6)
    assert (loaded.file_seconds, loaded.start, loaded.end) == (SECONDS, 2.0, pytest.approx(3.21))


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 44_099, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_rate(write, rate, channels):
    path = write(music(3, rate, channels), rate)
    np.testing.assert_allclose(load_waveform(path).samples, whole(path), rtol=0, atol=1e-6)
    middle = load_waveform(path, segment=(1.5, 2.25))
    np.testing.assert_allclose(middle.samples, whole(path)[24_000:36_000], rtol=0, atol=1e-6)


def test_many_blocks_are_one_file(songs, monkeypatch):
    monkeypatch.setattr(decoder, "BLOCK", 1_000)
    np.testing.assert_allclose(load_waveform(songs / "flac").samples, whole(songs / "flac"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_longest_decodes_no_more(songs, name, monkeypatch):
    decoded = []
    read = soundfile.SoundFile.read

    def counting(self, *arguments, **keywords):
        block = read(self, *arguments, **keywords)
        decoded.append(len(block))
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    loaded = load_waveform(songs / name, segment=[1, 5.0], longest=1.5)
    assert sum(decoded) <= 2 * FORMATS[name][2]
    np.testing.assert_allclose(loaded.samples, whole(songs / name)[16_000:40_000], rtol=0, atol=1e-6)
    assert (loaded.file_seconds, loaded.start, loaded.end, loaded.warnings) == (SECONDS, 1.0, 2.5, ())


def test_mono_is_the_mean_of_eight_channels(write):
    loud = np.zeros((SAMPLE_RATE, 8), np.float32)
    loud[:, 3] = 0.8
    np.testing.assert_allclose(load_waveform(write(loud)).samples, 0.1, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_mean_of_the_channels_is_exactly_that(write, channels):
    samples = music(1, SAMPLE_RATE, channels)
    np.testing.assert_array_equal(load_waveform(write(samples)).samples, samples.mean(axis=1))


def test_16_bit_samples_come_through_exactly(write):
    every = np.arange(-32768, 32768).astype(np.int16)
    np.testing.assert_array_equal(load_waveform(write(every, subtype="PCM_16")).samples, every / np.float32(32768))


def test_content_decides_and_not_the_suffix(songs, tmp_path):
    for suffix in (".WAV", ".raw", ".au", ".vox", ".txt"):
        path = tmp_path / f"Song{suffix}"
        path.write_bytes((songs / "flac").read_bytes())
        assert load_waveform(str(path)).file_seconds == SECONDS


def test_flac_of_unknown_length(songs, tmp_path):
    stream = bytearray((songs / "flac").read_bytes())
    stream[21] &= 0xF0  # 36 bits: the number of samples; 0 when written to a pipe
    stream[22:26] = bytes(4)
    path = tmp_path / "piped.flac"
    path.write_bytes(stream)
    assert load_waveform(path).file_seconds == pytest.approx(SECONDS, abs=0.01)
    loaded = load_waveform(path, longest=2)
    assert (loaded.end, loaded.file_seconds) == (2.0, pytest.approx(SECONDS, abs=0.01))
    np.testing.assert_allclose(loaded.samples, whole(songs / "flac")[:32_000], rtol=0, atol=1e-6)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segment", "said"),
    [
        ((3, 1), "segment 3 to 1 s ends before it has begun"),
        ((2, 2), "segment 2 to 2 s ends before"),
        ((-1.5, 2), "segment -1.5 to 2 s starts outside"),
        ((float("nan"), 2), "segment nan to 2 s"),
        ((1, float("nan")), "segment 1 to nan s"),
        ((7, 9), "segment starts at 7 s, but the file ends at 6.000 s"),
        ((6, 9), "segment starts at 6 s, but the file ends at 6.000 s"),
        ((1, 2, 3), "two numbers of seconds, start and end, not 3"),
        ((1, 1.05), "only 0.05 s of audio at 1 s; at least 0.1 s"),
    ],
)
def test_impossible_segments(songs, segment, said):
    assert said in message(songs / "flac", segment=segment)


def test_a_segment_beyond_the_end_is_clipped_aloud(songs):
    loaded = load_waveform(songs / "flac", segment=(5, 8))
    assert (len(loaded.samples), loaded.end) == (16_000, SECONDS)
    (warning,) = loaded.warnings
    assert "segment ends at 8 s, but the file at 6.000 s" in warning


def test_too_long(songs):
    assert "too long, 6.0 s where at most 5 s are decoded; give a segment" in message(songs / "mp3", max_seconds=5)
    assert "too long, 5.5 s where at most 5 s" in message(songs / "mp3", max_seconds=5, segment=(0, 5.5))
    assert load_waveform(songs / "mp3", max_seconds=5, segment=(1, 6)).end == SECONDS
    assert load_waveform(songs / "mp3", max_seconds=5, longest=5).end == 5
    assert "longest must be more than 0 s" in message(songs / "mp3", longest=0)


def test_files_that_are_none(tmp_path):
    assert "no such file; check the path" in message(tmp_path / "missing.mp3")
    assert "is a folder" in message(tmp_path)
    assert "is no regular file" in message("/dev/null")
    (tmp_path / "empty.wav").touch()
    assert "empty audio file (0 bytes)" in message(tmp_path / "empty.wav")
    assert "no such file; download it first" in message("https://example.org/song.mp3")
    assert "cannot be opened (File name too long)" in message("x" * 5000)
    for hostile in ("zero\0byte", "two\nlines", "\udc80"):
        with pytest.raises(AudioError) as caught:
            load_waveform(hostile)
        assert str(caught.value).isprintable()


def test_an_m4a_is_refused_and_not_decoded_to_nothing(tmp_path):
    path = tmp_path / "song.mp3"
    path.write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + np.random.default_rng(0).bytes(3000))
    said = message(path)
    assert "libsndfile says: Format not recognised." in said
    assert "WAV, FLAC, MP3, OGG Vorbis, Opus and AIFF" in said


@pytest.mark.parametrize("start", ["#EXTM3U\n", "\ufeff#EXTM3U\r\n", "\n[playlist]\nFile1="])
def test_playlists_are_not_followed(songs, tmp_path, start):
    path = tmp_path / "song.mp3"
    path.write_text(f"{start}#EXTINF:10,\n{songs / 'flac'}\n")
    assert "is a playlist, not audio" in message(path)


def test_too_little_audio(write):
    assert "empty audio file (a header and no samples)" in message(write(np.zeros((0, 2))))
    assert "at least 0.1 s are needed" in message(write(np.zeros(1_599)))
    assert len(load_waveform(write(np.full(1_600, 0.5))).samples) == 1_600


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers(write, value):
    samples = music(6, SAMPLE_RATE)
    samples[80_000, 1] = value
    path = write(samples)
    assert "NaN or infinity at 5.000 s" in message(path)
    assert load_waveform(path, segment=(0, 4)).warnings == ()


def test_samples_that_overflow(write):
    samples = music(1, SAMPLE_RATE)
    samples[8_000] = -3e38
    assert "a sample of -3e+38 at 0.500 s" in message(write(samples))


def test_limits(write, monkeypatch):
    path = write(music(3, 48_000), 48_000)
    monkeypatch.setattr(decoder, "FILE_LIMIT", 1000)
    assert "more than the limit of 1000; cut it first" in message(path)
    monkeypatch.undo()
    monkeypatch.setattr(waveform, "DECODED_LIMIT", 2 * 3 * 48_000 - 1)
    assert "decodes to at least 288000 bytes (144000 frames at 48000 Hz), more than the limit of 287999" in message(
        path
    )
    assert load_waveform(path, longest=1).end == 1
    low = write(music(3, 8_000), 8_000)
    monkeypatch.setattr(waveform, "DECODED_LIMIT", 2 * 3 * SAMPLE_RATE - 1)
    assert "decodes to at least 96000 bytes (24000 frames at 8000 Hz)" in message(low)
    monkeypatch.undo()
    assert "65 channels, more than the limit of 64" in message(write(np.zeros((2_000, 65)), subtype="PCM_16"))


@pytest.mark.parametrize(("rate", "said"), [(1, "sample rate 1 Hz"), (2_000_000_000, "sample rate 2000000000 Hz")])
def test_sample_rates_that_lie(write, rate, said):
    path = write(music(1, SAMPLE_RATE), subtype="PCM_16")
    header = bytearray(path.read_bytes())
    header[24:28] = struct.pack("<I", rate)
    path.write_bytes(header)
    assert said in message(path)


def test_a_high_rate_does_not_get_around_the_limit(tmp_path, write):
    path = write(np.zeros(1_000, np.int16), 1_000_000, "PCM_16")
    size = 300 * 1024**2
    header = bytearray(path.read_bytes()[:44])
    header[40:44] = struct.pack("<I", size)
    path.write_bytes(header)
    os.truncate(path, 44 + size)  # takes no room on the disk
    assert f"decodes to at least {size} bytes" in message(path)  # though it is 157 s


def test_a_flac_whose_header_promises_too_much_is_refused_before_it_is_decoded(write):
    path = write(np.zeros(48_000 * 60, np.int16), 48_000, "PCM_16", "FLAC")
    stream = bytearray(path.read_bytes())
    stream[21] = stream[21] & 0xF0 | 1  # 2**32 samples and more
    path.write_bytes(stream)
    began = time.monotonic()
    assert "too long" in message(path)
    assert "more than the limit of 268435456" in message(path, max_seconds=1e9)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("says_so", [True, False])
def test_a_flac_bomb_is_refused_in_little_memory(write, says_so):
    """A file of a megabyte that decodes to gigabytes, whether its header says so or not."""
    path = write(np.zeros(0, np.int16), 48_000, "PCM_16", "FLAC")
    with soundfile.SoundFile(path, "w", 48_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(140):
            file.write(np.zeros(1_000_000, np.int16))
    stream = bytearray(path.read_bytes())
    assert len(stream) < 2e6
    if not says_so:
        stream[21] &= 0xF0
        stream[22:26] = bytes(4)
        path.write_bytes(stream)
    program = (
        "import resource, sys; from mufun_jax.audio.waveform import load_waveform\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: load_waveform(sys.argv[1])\n"
        "except ValueError as error: print(peak() - before, error)"
    )
    child = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    kilobytes, said = child.stdout.split(" ", 1)
    assert said.startswith(f"{path}: decodes to at least ")
    assert int(kilobytes) < 100_000


# --- what is said --------------------------------------------------------------------------------------------------


def test_opposite_phase(write):
    left = music(1, SAMPLE_RATE, 1)
    loaded = load_waveform(write(np.concatenate([left, -0.999 * left], 1)))
    assert "opposite phase" in " ".join(loaded.warnings)
    inverted = np.concatenate([left, -left], 1)
    for fine in (inverted * (1, 0.95), inverted * (1, -1), inverted * 1e-5, inverted * 0):
        assert load_waveform(write(fine)).warnings == ()


@pytest.mark.parametrize("scale", [12.0, 32_768.0, 2.1e9])
def test_samples_far_above_full_scale(write, scale):
    samples = music(2, SAMPLE_RATE, 1)[:, 0]
    samples /= np.abs(samples).max()
    loaded = load_waveform(write(samples * np.float32(scale)))
    np.testing.assert_allclose(loaded.samples, samples, rtol=0, atol=1e-6)
    (warning,) = loaded.warnings
    assert f"samples reach {scale:.3g}" in warning


def test_ordinary_overs_are_left_alone(write):
    samples = music(1, SAMPLE_RATE, 1)[:, 0] * 5
    assert 1.3 < np.abs(samples).max() < 4
    loaded = load_waveform(write(samples))
    np.testing.assert_array_equal(loaded.samples, samples)
    assert loaded.warnings == ()
