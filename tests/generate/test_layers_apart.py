"""On one CPU device each decoder layer has arrays of its own: answers are those of layers in a scan."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from mufun_jax.generate.attention_map import attention_over_song
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.question import make_question
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.model_folder import save_model
from mufun_jax.weights.params import layers_apart
from tests.tiny import SMALLEST, random_params

CONFIG = replace(SMALLEST, decoder=replace(SMALLEST.decoder, layers=3))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    save_model(folder, CONFIG, random_params(CONFIG), load_tokenizer("nano"))
    return folder


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_answers_are_those_of_layers_in_a_scan(checkpoint, song, quantize, monkeypatch):
    apart = MuFun.from_pretrained(checkpoint, "float32", quantize=quantize, quantize_cache=quantize)
    monkeypatch.setattr("mufun_jax.generate.engine.compute_on", lambda mesh, compute: compute)
    scanned = MuFun.from_pretrained(checkpoint, "float32", quantize=quantize, quantize_cache=quantize)
    assert not apart.engine.model.compute.scan_layers and scanned.engine.model.compute.scan_layers
    songs = [song(seconds) for seconds in (1.6, 1.9)]
    questions = [make_question(prompt, path) for path in songs for prompt in ("What is the key?", "Fast?")]
    of_both = [model.answer(questions, max_new_tokens=8) for model in (apart, scanned)]
    for ours, expected in zip(*of_both, strict=True):
        assert ours.tokens == expected.tokens
        np.testing.assert_allclose(ours.log_probabilities, expected.log_probabilities, rtol=1e-5, atol=1e-5)
    if quantize:
        return
    options = ["major", "minor"]
    of_both = [model.score("Major or minor?", songs[0], options) for model in (apart, scanned)]
    for ours, expected in zip(*of_both, strict=True):
        np.testing.assert_allclose(ours.log_probability, expected.log_probability, rtol=1e-5)
    weights = [attention_over_song(model, questions[0]) for model in (apart, scanned)]
    assert weights[0].shape == weights[1].shape and weights[0].any()
    np.testing.assert_allclose(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_views_take_no_memory_of_their_own():
    params = random_params(CONFIG)
    on_one = jax.device_put(params, jax.devices()[0])
    apart = layers_apart(on_one, jax.devices()[0])
    stacked, layers = on_one["decoder"]["layers"], apart["decoder"]["layers"]
    assert list(layers) == [str(number) for number in range(CONFIG.decoder.layers)]
    of_last = jax.tree.map(lambda leaf: np.asarray(leaf)[-1], stacked)
    jax.tree.map(np.testing.assert_array_equal, layers[str(CONFIG.decoder.layers - 1)], of_last)
    start = stacked["gate"]["kernel"].unsafe_buffer_pointer()
    assert 0 <= layers["1"]["gate"]["kernel"].unsafe_buffer_pointer() - start < stacked["gate"]["kernel"].nbytes
    assert apart["encoder"] is on_one["encoder"]
