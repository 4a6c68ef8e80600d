import pytest
import soundfile

from mufun_jax.config import SAMPLE_RATE
from tests.audio.songs import FORMATS, SECONDS, music


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """One song in every format, named without a suffix."""
    folder = tmp_path_factory.mktemp("songs")
    for name, (kind, subtype, rate) in FORMATS.items():
        soundfile.write(folder / name, music(SECONDS, rate), rate, format=kind, subtype=subtype)
    return folder


@pytest.fixture
def write(tmp_path):
    def write(samples, rate=SAMPLE_RATE, subtype="FLOAT", kind="WAV"):
        path = tmp_path / "song.wav"
        soundfile.write(path, samples, rate, format=kind, subtype=subtype)
        return path

    return write
