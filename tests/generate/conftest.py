"""A random model with windows of 1 s, of which it hears 4, and songs."""

import numpy as np
import pytest
import soundfile

from mufun_jax.config import SAMPLE_RATE
from mufun_jax.generate.chat import MuFun
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.tokenizer import load_tokenizer
from tests.tiny import SMALLEST as CONFIG
from tests.tiny import random_params


def make_model(config=CONFIG, mesh=None, **options) -> MuFun:
    model, tokenizer = MuFunModel(config), load_tokenizer("nano")
    return MuFun(model, random_params(config), tokenizer, mesh or inference_mesh(), **options)


@pytest.fixture(scope="module")
def model() -> MuFun:
    return make_model()


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Writes a WAV file of so many seconds, in which every sample is different."""
    folder = tmp_path_factory.mktemp("songs")

    def write(seconds: float, name: str = "song") -> str:
        path = folder / f"{name}{seconds}.wav"
        samples = np.arange(round(seconds * SAMPLE_RATE)) % 30_000
        soundfile.write(path, samples.astype(np.int16), SAMPLE_RATE)
        return str(path)

    return write
