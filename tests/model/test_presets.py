"""Sizes of the presets, counted from shapes alone, and a sharding rule for every parameter of theirs."""

import jax
import pytest
import torch
from flax.linen import meta
from jax.sharding import NamedSharding
from transformers import Qwen3ForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mufun_jax.config import ModelConfig
from mufun_jax.config_file import to_json, validate
from mufun_jax.errors import ConfigError
from mufun_jax.model.presets import PRESETS, WHISPER_BASE, preset
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.sharding.rules import RULES, partition_spec, tree_shardings
from mufun_jax.weights.params import abstract_params, count_params, param_shardings
from tests.parity.reference_model import qwen3_config, whisper_config

QWEN3_VOCABULARY = 151_936


def parts_of(config: ModelConfig) -> dict[str, int]:
    return {part: count_params(tree) for part, tree in meta.unbox(abstract_params(config)).items()}


def test_mufun_8b_has_the_released_models_parameters():
    parts = parts_of(preset("mufun_8b"))
    assert parts == {"decoder": 8_190_735_360, "encoder": 636_968_960, "connector": 94_386_176}
    assert sum(parts.values()) == 8_922_090_496


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_counted_as_transformers_counts_them(name):
    config = preset(name)
    with torch.device("meta"):
        encoder = WhisperEncoder(whisper_config(config.encoder))
        decoder = Qwen3ForCausalLM(qwen3_config(config.decoder))
    parts = parts_of(config)
    assert parts["encoder"] == sum(parameter.numel() for parameter in encoder.parameters())
    assert parts["decoder"] == sum(parameter.numel() for parameter in decoder.parameters())


@pytest.mark.parametrize(
    ("name", "decoder"), [("mufun_0_6b", 596_049_920), ("mufun_1_7b", 1_720_574_976), ("mufun_4b", 4_022_468_096)]
)
def test_the_smaller_decoders_tie_their_heads(name, decoder):
    config = preset(name)
    assert config.decoder.tied_embeddings
    assert parts_of(config)["decoder"] == decoder, "as published for Qwen3, embedding counted once"


def test_what_no_count_sees():
    for name, config in PRESETS.items():
        assert config.connector_width == 2 * len(config.encoder.taps) * config.encoder.width, name
        assert config.encoder.taps[0] == 0, name
        if name != "nano":
            assert config.encoder.taps == (0, 7, 15, 32), name
            assert (config.encoder.frames, config.encoder.tokens_per_window) == (1500, 300), name
            minutes = {"mufun_8b_20min": 20, "mufun_8b_60min": 60}.get(name, 6.5)
            assert config.max_seconds == 60 * minutes, name
            assert config.decoder.vocab_size == QWEN3_VOCABULARY, name
            assert (config.decoder.rope_theta, config.decoder.norm_epsilon) == (1e6, 1e-6), name
            assert (config.decoder.head_size, config.decoder.kv_heads) == (128, 8), name
    assert WHISPER_BASE.tokens_per_window == 300


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_its_json(name):
    assert validate(ModelConfig, to_json(preset(name)), name) == preset(name)


@pytest.mark.parametrize("name", PRESETS)
def test_every_parameter_has_a_sharding(name):
    """`param_shardings` raises for an axis without a rule, and for two axes of one parameter on one mesh axis."""
    config = preset(name)
    shardings = param_shardings(config, inference_mesh())
    shapes = meta.unbox(abstract_params(config))
    split = jax.tree.map(lambda sharding, shape: sharding if shape.ndim >= 2 else None, shardings, shapes)
    for path, sharding in jax.tree_util.tree_leaves_with_path(split):
        assert isinstance(sharding, NamedSharding)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        norm_or_bias = name.endswith(("scale", "bias"))
        assert norm_or_bias or name.endswith("positions") or any(sharding.spec), f"{name} is whole on every device"


def test_parameters_that_the_rules_do_not_know_are_errors():
    with pytest.raises(ValueError, match=r"decoder.kernel.*'bogus'.*no rule"):
        partition_spec(("embed", "bogus"), "decoder.kernel")
    with pytest.raises(ValueError, match=r"decoder.kernel.*'mlp' and 'heads' both lie on mesh axis 'tensor'"):
        partition_spec(("mlp", "heads"), "decoder.kernel")
    with pytest.raises(ValueError, match=r"part.kernel: parameter without logical axes"):
        tree_shardings({"part": {"kernel": jax.ShapeDtypeStruct((2, 2), float)}}, inference_mesh())
    assert all(set(mesh_axes) <= {"data", "fsdp", "tensor", "context"} for mesh_axes in RULES.values())


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match=r"mufun_8B.*did you mean 'mufun_8b'"):
        preset("mufun_8B")
