"""The text side, rung by rung: one Qwen3 layer, the whole decoder with its heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mufun_jax.model.compute import Compute
from mufun_jax.model.qwen3_decoder import DecoderLayer, Qwen3Decoder
from tests.parity.reference_model import ReferenceModel, params_of
from tests.tiny import relative_error, tiny_decoder, tiny_model

TOLERANCE = 1e-5

DECODERS = {
    "tied, 6 heads on 2": tiny_decoder(),
    "untied, 5 heads on 1": tiny_decoder(tied_embeddings=False, width=26, heads=5, kv_heads=1, head_size=6, layers=4),
    "untied, 3 heads on 3": tiny_decoder(tied_embeddings=False, heads=3, kv_heads=3, head_size=12, vocab_size=97),
    "tied, one layer, other constants": tiny_decoder(layers=1, rope_theta=500.0, norm_epsilon=1e-3),
}


@pytest.fixture(params=DECODERS.values(), ids=list(DECODERS))
def reference(request) -> ReferenceModel:
    return ReferenceModel(tiny_model(decoder=request.param))


def test_one_layer(reference):
    config, length, first_position = reference.config.decoder, 19, 3000
    hidden = torch.randn(2, length, config.width, generator=torch.Generator().manual_seed(1))
    positions = torch.arange(first_position, first_position + length)[None].expand(2, -1)
    last = config.layers - 1
    with torch.no_grad():
        model = reference.decoder.model
        causal = torch.full((length, length), float("-inf")).triu(1)[None, None]
        angles = model.rotary_emb(hidden, positions)
        expected = model.layers[last](hidden, attention_mask=causal, position_embeddings=angles)

    params = jax.tree.map(lambda leaf: leaf[last], params_of(reference)["decoder"]["layers"])
    ours, cache = jax.jit(DecoderLayer(config, Compute()).apply)(
        {"params": params},
        jnp.asarray(hidden.numpy()),
        jnp.asarray(positions.numpy()),
        jnp.ones((2, length), jnp.int32),
        None,
    )
    assert cache is None
    assert relative_error(ours, expected) < TOLERANCE


def test_whole_decoder(reference):
    config, length = reference.config, 23
    tokens = np.random.default_rng(1).integers(0, config.decoder.vocab_size, (3, length))
    with torch.no_grad():
        expected = reference.decoder(torch.tensor(tokens)).logits
        states = reference.decoder.model(torch.tensor(tokens)).last_hidden_state

    def apply(decoder: Qwen3Decoder, tokens):
        positions = jnp.broadcast_to(jnp.arange(length), tokens.shape)
        hidden, _ = decoder(decoder.embed(tokens), positions, jnp.ones(tokens.shape, jnp.int32))
        return hidden, decoder.logits(hidden)

    params = params_of(reference)["decoder"]
    decoder = Qwen3Decoder(config.decoder)
    run = jax.jit(lambda params, tokens: decoder.apply({"params": params}, tokens, method=apply))
    hidden, logits = run(params, jnp.asarray(tokens, jnp.int32))
    assert relative_error(hidden, states) < TOLERANCE
    assert relative_error(logits, expected) < TOLERANCE


def test_a_tied_head_has_no_parameters_and_an_untied_one_its_own():
    configs = [tiny_model(decoder=tiny_decoder(tied_embeddings=tied)) for tied in (True, False)]
    tied, untied = (params_of(ReferenceModel(config))["decoder"] for config in configs)
    assert "head" not in tied
    assert untied["head"]["kernel"].shape == (28, 61)
    assert not np.array_equal(untied["head"]["kernel"], untied["embedding"].T)
