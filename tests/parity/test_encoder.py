"""The audio side, rung by rung: encoder with its taps, pooling, connector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.whisper.modeling_whisper import sinusoids as whisper_sinusoids

from mufun_jax.config import SAMPLE_RATE, EncoderConfig
from mufun_jax.model.connector import Connector
from mufun_jax.model.whisper_encoder import WhisperEncoder, mean_pool, sinusoids
from tests.parity.reference_model import ReferenceModel, params_of
from tests.tiny import relative_error, tiny_encoder, tiny_model

TOLERANCE = 1e-5

ENCODERS = {
    "four taps, odd heads and layers": tiny_encoder(width=30, heads=5, layers=7, mlp_width=44, taps=(0, 2, 3, 7)),
    "every layer": tiny_encoder(mel_bins=128, taps=(0, 1, 2, 3)),
    "the last layer only": tiny_encoder(width=16, heads=1, layers=5, taps=(5,), window_samples=3 * SAMPLE_RATE),
    "one layer": tiny_encoder(layers=1, taps=(1,)),
    "convolutions and last, pool 2": tiny_encoder(layers=2, taps=(0, 2), pool=2, window_samples=2 * SAMPLE_RATE),
}


@pytest.fixture(params=ENCODERS.values(), ids=list(ENCODERS))
def encoder(request) -> EncoderConfig:
    return request.param


def test_each_tap_after_pooling(encoder):
    reference = ReferenceModel(tiny_model(encoder))
    log_mel = torch.randn(3, encoder.mel_bins, 2 * encoder.frames, generator=torch.Generator().manual_seed(1))
    ours = jax.jit(WhisperEncoder(encoder).apply)(
        {"params": params_of(reference)["encoder"]}, jnp.asarray(log_mel.mT.numpy())
    )
    ours = np.asarray(ours).reshape(3, encoder.tokens_per_window, len(encoder.taps), encoder.width)
    with torch.no_grad():
        taps = reference.taps(log_mel)
        last = reference.encoder(log_mel).last_hidden_state
    assert torch.equal(taps[-1], last), "the last tap has passed the final layer norm"
    for number, tap in enumerate(taps):
        pooled = tap.unflatten(1, (-1, encoder.pool)).mean(2)
        assert relative_error(ours[:, :, number], pooled) < TOLERANCE, f"tap {encoder.taps[number]}"


def test_pooling_averages_whole_frames_in_float32():
    # Frames 256 to 260 are bfloat16 numbers only in steps of 2, and their sum only in steps of 8.
    hidden = np.array([256, 256, 256, 256, 266, 1, 2, 3, 4, 5], np.float32)[None, :, None]
    pooled = mean_pool(jnp.asarray(hidden, jnp.bfloat16), 5)
    assert pooled.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(pooled, np.float32)[0, :, 0], [258, 3])


@pytest.mark.parametrize("width", [16, 1280])
def test_the_position_table_is_whispers(width):
    torch.set_default_dtype(torch.float64)  # in float32 its angles, up to 1,500, are off by more than 1e-4
    try:
        expected = whisper_sinusoids(1500, width)
    finally:
        torch.set_default_dtype(torch.float32)
    assert expected.dtype == torch.float64
    assert relative_error(sinusoids(1500, width), expected) < 1e-7


@pytest.mark.parametrize("windows, tokens", [(1, 1), (3, 7)])
def test_connector(windows, tokens):
    config = tiny_model()
    reference = ReferenceModel(config)
    features = 2 * torch.randn(windows, tokens, 3 * 24, generator=torch.Generator().manual_seed(1))
    connector = Connector(config.connector_width, config.decoder.width)
    ours = connector.apply({"params": params_of(reference)["connector"]}, jnp.asarray(features.numpy()))
    with torch.no_grad():
        assert relative_error(ours, reference.connect(features)) < 1e-6
