"""Songs as vectors: the model's own features, averaged over what was heard."""

import jax
import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.generate.question import make_question
from mufun_jax.model.mufun import MuFunModel
from tests.generate.conftest import CONFIG


def features_of(model, windows, method):
    program = jax.jit(lambda params, windows: model.model.apply({"params": params}, windows, method=method))
    return np.asarray(program(model.params, windows))


def test_features_are_the_models_own_over_what_was_heard(model, song):
    path = song(2.65)
    windows = model.listener.prompt(make_question("key?", path)).windows
    connector = features_of(model, windows[None], MuFunModel.encode_audio)[0]
    tokens = model.embed(path, pool=False)
    assert tokens.shape == (27, CONFIG.decoder.width), "0.1 s a token; the last is half silence"
    np.testing.assert_allclose(tokens, connector[:27], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.embed(path), connector[:27].mean(0), rtol=1e-5, atol=1e-5)
    encoder = model.embed(path, features="encoder", pool=False)
    assert encoder.shape == (27, CONFIG.encoder.width * len(CONFIG.encoder.taps))
    through = features_of(model, encoder[None], lambda model, features: model.connector(features))
    np.testing.assert_allclose(through[0], tokens, rtol=1e-5, atol=1e-5)


def test_one_song_or_several_and_parts_of_them(model, song):
    paths = [song(2.65), song(0.5)]
    both = model.embed(paths)
    assert both.shape == (2, CONFIG.decoder.width)
    np.testing.assert_allclose(both[1], model.embed(paths[1]), rtol=1e-6)
    assert np.abs(both[0] - both[1]).max() > 1e-3
    (alone,) = model.embed([paths[0]])
    np.testing.assert_array_equal(alone, both[0])
    apart = model.embed(paths, [[0.5, 1.5], None], pool=False)
    assert [len(tokens) for tokens in apart] == [10, 5]


def test_a_song_longer_than_the_model_hears_is_embedded_whole(model, song):
    tokens = model.embed(song(9.7), pool=False)
    assert len(tokens) == 97
    np.testing.assert_allclose(tokens[80:90], model.embed(song(9.7), [8, 9], pool=False), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_embedded(model, song):
    with pytest.raises(UserError, match="no song to embed"):
        model.embed([])
