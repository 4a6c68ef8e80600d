"""What can be looked at inside, against PyTorch: hidden states of every encoder layer, attention of every head."""

import numpy as np
import pytest
import soundfile
import torch

from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import UserError
from mufun_jax.generate.attention_map import attention_over_song
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.encoder_features import encoder_features
from mufun_jax.generate.question import make_question
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.conversation import Turn, render
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.params import Params
from tests.parity.reference_model import ReferenceModel, params_of, whisper_features
from tests.tiny import random_windows, relative_error, tiny_decoder, tiny_encoder, tiny_model

CONFIG = tiny_model(tiny_encoder(taps=(0, 1, 3)), tiny_decoder(vocab_size=512), max_windows=6)
QUESTIONS = ["Which key, and where does it change?", "<audio> Or is it <audio>"]


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    reference = ReferenceModel(CONFIG)
    reference.decoder.set_attn_implementation("eager")
    return reference


@pytest.fixture(scope="module")
def params(reference) -> Params:
    return params_of(reference)


@pytest.fixture(scope="module")
def model(params) -> MuFun:
    return MuFun(MuFunModel(CONFIG), params, load_tokenizer("nano"), inference_mesh())


@pytest.fixture(scope="module")
def songs(tmp_path_factory) -> list[tuple[str, np.ndarray]]:
    """Files of two windows and of one, with their samples."""
    found = []
    for count in (2, 1):
        windows = random_windows(np.random.default_rng(count), count, CONFIG.encoder.window_samples)
        path = str(tmp_path_factory.mktemp("songs") / "song.wav")
        soundfile.write(path, windows.reshape(-1), SAMPLE_RATE)
        found.append((path, windows))
    return found


def test_the_encoder_at_every_depth(model, reference):
    """Of five windows, one more than are computed at once."""
    windows = random_windows(np.random.default_rng(0), 5, CONFIG.encoder.window_samples)
    found = encoder_features(model, windows)
    with torch.no_grad():
        log_mel = whisper_features(windows, CONFIG.encoder.mel_bins)
        states = reference.encoder(log_mel, output_hidden_states=True).hidden_states
    assert found.shape == (CONFIG.encoder.layers + 1, 5, CONFIG.encoder.frames, CONFIG.encoder.width)
    assert found.dtype == np.float32
    for depth, state in enumerate(states):
        assert relative_error(found[depth], state) < 1e-4, f"depth {depth}"
    pooled = encoder_features(model, windows, CONFIG.encoder.pool)
    by_token = found[2].reshape(5, -1, CONFIG.encoder.pool, CONFIG.encoder.width)
    assert relative_error(pooled[2], by_token.mean(2)) < 1e-6


@pytest.mark.parametrize("question", QUESTIONS)
def test_attention_over_songs(model, reference, songs, question):
    files = songs[: max(1, question.count("<audio>"))]
    asked = make_question(question, [path for path, _ in files])
    found = attention_over_song(model, asked)
    pieces = [piece.ids for piece in model.tokenizer.encode_pieces(render([Turn(asked.prompt)]))]
    with torch.no_grad():
        embeddings = reference.embeddings(pieces, [windows for _, windows in files])
        layers = reference.decoder(inputs_embeds=embeddings[None], output_attentions=True).attentions
    expected = torch.stack(layers)[:, 0, :, -1].numpy()
    assert np.allclose(expected.sum(-1), 1)
    is_audio = model.listener.prompt(asked).spliced.audio_slot >= 0
    assert found.shape == (CONFIG.decoder.layers, CONFIG.decoder.heads, 10 * sum(len(windows) for _, windows in files))
    assert relative_error(found, expected[:, :, is_audio]) < 1e-4
    assert (found.sum(-1) < 1).all()


def test_attention_over_a_song_that_is_kept_as_int8(model, params, songs):
    rounded = MuFun(model.model, params, model.tokenizer, model.mesh, quantize_cache="int8")
    asked = make_question(QUESTIONS[0], songs[0][0])
    found, exact = attention_over_song(rounded, asked), attention_over_song(model, asked)
    assert 1e-6 < relative_error(found, exact) < 0.05


def test_without_a_song_there_is_nothing_to_look_at(model):
    with pytest.raises(UserError, match="no song to look at: give an audio file"):
        attention_over_song(model, make_question("What is a key?"))
