"""config.json of Hugging Face's folders: sizes in and out, and every value that cannot be used is named."""

import copy
import functools
import json
from typing import Any

import pytest
from transformers import Qwen3Config, WhisperConfig

from mufun_jax.errors import UserError
from mufun_jax.model.presets import PRESETS, WHISPER_BASE, WHISPER_LARGE_V3, preset
from mufun_jax.weights.hf_config import (
    Origin,
    decoder_config,
    encoder_config,
    folder_config,
    released_values,
)
from tests.released_folder import released_config, small_model


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_its_config(name):
    values = json.loads(json.dumps(released_values(preset(name), Origin(), "bfloat16", {})))
    assert folder_config(values, "config.json").model == preset(name)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "nano" and PRESETS[name].max_windows == 13])
def test_the_authors_config_says_the_same(name):
    """Without our key, and with nested configs as differences from transformers' defaults."""
    assert folder_config(released_config(preset(name)), "config.json").model == preset(name)


def test_what_a_file_leaves_out_is_transformers_default():
    for theirs, ours in ((Qwen3Config(), decoder_config({}, "x")), (WhisperConfig(), encoder_config({}, "x"))):
        for key, value in {
            "vocab_size": getattr(ours, "vocab_size", None),
            "hidden_size": ours.width,
            "intermediate_size": ours.mlp_width,
            "num_key_value_heads": getattr(ours, "kv_heads", None),
            "head_dim": getattr(ours, "head_size", None),
            "rms_norm_eps": getattr(ours, "norm_epsilon", None),
        }.items():
            if (
                value is not None
                and hasattr(theirs, key)
                and not (isinstance(theirs, WhisperConfig) and key != "hidden_size")
            ):
                assert getattr(theirs, key) == value, key
    rope = Qwen3Config().rope_parameters
    assert rope is not None
    assert rope.get("rope_theta") == decoder_config({}, "x").rope_theta
    whisper, ours = WhisperConfig(), encoder_config({}, "x")
    assert (whisper.d_model, whisper.encoder_layers, whisper.encoder_attention_heads) == (
        ours.width,
        ours.layers,
        ours.heads,
    )
    assert (whisper.num_mel_bins, whisper.encoder_ffn_dim, whisper.max_source_positions) == (
        ours.mel_bins,
        ours.mlp_width,
        ours.frames,
    )


def test_rotary_positions_in_old_and_new_files():
    assert decoder_config({"rope_theta": 1e6}, "x").rope_theta == 1e6
    assert decoder_config({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "x").rope_theta == 5e5
    assert decoder_config({"rope_theta": 1e6, "rope_scaling": None}, "x").rope_theta == 1e6


def test_known_layer_sets():
    sizes = {"encoder_layers": 32, "d_model": 1280, "encoder_attention_heads": 20, "encoder_ffn_dim": 5120}
    assert encoder_config({**sizes, "num_mel_bins": 128}, "x") == WHISPER_LARGE_V3
    base = {"encoder_layers": 6, "d_model": 512, "encoder_attention_heads": 8, "encoder_ffn_dim": 2048}
    assert encoder_config(base, "x") == WHISPER_BASE
    assert encoder_config({**base, "encoder_layers": 5}, "x", (0, 5)).taps == (0, 5)


RELEASED = released_config(small_model())
WRONG = [
    ("model_type", "llava", r"no MuFun model \(model_type 'llava'"),
    ("model_type", None, "no MuFun model"),
    ("connector_type", "qformer", "connector_type 'qformer' is not known; MuFun's is 'blp_4i_2x'"),
    ("connector_type", "blp_4i_2x_more", "is not known"),
    ("connector_type", "blp_2i_2x", r"takes 2 tapped layers, the layer set \[0, 1, 2, 4\] has 4"),
    ("connector_type", "blp_4i_0x", "has no width"),
    ("connector_type", "custom", "connector_type 'custom' is not known"),
    ("connector_type", ["blp_4i_2x"], "is not known"),
    ("connector_type", None, "connector_type None is not known"),
    ("hidden_size", 4096, "hidden_size is 4096, where only 28 can be used"),
    ("hidden_size", "28", "hidden_size is '28'"),
    ("text_config", None, "has no section text_config"),
    ("text_config", [], "has no section text_config"),
    ("vision_config", "openai/whisper-large-v3", "has no section vision_config"),
    ("text_config.model_type", "qwen2", "text_config: model_type is 'qwen2', where only 'qwen3'"),
    ("text_config.hidden_act", "gelu", "hidden_act is 'gelu'"),
    ("text_config.attention_bias", True, "attention_bias is True, where only False"),
    ("text_config.use_sliding_window", True, "use_sliding_window is True"),
    ("text_config.rope_scaling", {"rope_type": "yarn", "factor": 4}, "rotary positions of type 'yarn'"),
    ("text_config.rope_scaling", {"type": "linear"}, "type 'linear'"),
    ("text_config.rope_scaling", "yarn", "rope_scaling is 'yarn'"),
    ("text_config.layer_types", ["full_attention", "sliding_attention"], "layer_types: only 'full_attention'"),
    ("text_config.layer_types", 3, "layer_types"),
    ("text_config.rope_theta", -1, "rope_theta is -1, not a number above 0"),
    ("text_config.rope_theta", "1e6", "rope_theta is '1e6'"),
    ("text_config.rms_norm_eps", float("nan"), "rms_norm_eps is nan"),
    ("text_config.tie_word_embeddings", "yes", "tie_word_embeddings is 'yes'"),
    ("text_config.num_hidden_layers", 0, "num_hidden_layers is 0, not a number from 1"),
    ("text_config.num_hidden_layers", 10**9, "num_hidden_layers is 1000000000"),
    ("text_config.num_hidden_layers", 10**5, "num_hidden_layers 100000 is more than 512"),
    ("text_config.num_hidden_layers", True, "num_hidden_layers is True"),
    ("text_config.num_hidden_layers", 3.0, "num_hidden_layers is 3.0"),
    ("text_config.num_key_value_heads", 4, "6 heads do not share 4 key/value heads evenly"),
    ("text_config.head_dim", 9, "head_dim 9 is odd"),
    ("text_config.rms_norm_eps", 10**400, "rms_norm_eps is 1000"),
    ("text_config.head_dim", None, "head_dim is None"),
    ("vision_config.model_type", "clip_vision_model", "where only 'whisper'"),
    ("vision_config.activation_function", "gelu_new", "activation_function is 'gelu_new'"),
    ("vision_config.scale_embedding", True, "scale_embedding is True"),
    ("vision_config.encoder_layers", 5, r"an encoder of 5 layers has no known layer set .* --taps 0,2,5"),
    ("vision_config.encoder_layers", 1000, "encoder_layers 1000 is more than 512"),
    ("vision_config.encoder_attention_heads", 5, "width 24 does not divide into 5 heads"),
    ("vision_config.max_source_positions", 51, "is no whole number of audio tokens"),
    ("mufun_jax", 3, "has no section mufun_jax"),
    ("mufun_jax", {}, "the key 'format' is missing"),
]
OURS = released_values(small_model(), Origin(), "float32", {})
WRONG_OURS = [
    ("mufun_jax.format", 1, "is of format 1, this reads 2"),
    ("mufun_jax.taps", [0, 1, 2, 3], "must rise and end at the last layer, 4"),
    ("mufun_jax.taps", [0, 9, 4], "must rise"),
    ("mufun_jax.taps", "0", "mufun_jax: taps"),
    ("mufun_jax.pool", 0, "mufun_jax: pool"),
    ("mufun_jax.pool", 7, "is no whole number of audio tokens"),
    ("mufun_jax.connector_width", 100, "is 192 wide, but mufun_jax says 100"),
    ("mufun_jax.max_windows", 10**400, "is more than 10000"),
    ("mufun_jax.origin", {"base_models": [{"name": "x", "parts": [], "licence": "y"}]}, "did you mean 'license'"),
    ("mufun_jax.origin", {"stages": [{"name": "x", "steps": 1, "mixture": {"a": 0}, "trained_parts": []}]}, "mixture"),
    ("mufun_jax.max_windows", -1, "mufun_jax: max_windows"),
    ("mufun_jax.origin", {"base_models": [{"nam": "x"}]}, "mufun_jax: "),
    ("mufun_jax.orign", {}, "unknown key 'orign' .did you mean 'origin'"),
    ("vision_hidden_size", 1280, "vision_hidden_size is 1280, where only 24"),
]


def section_at(values: Any, path: list[str]) -> Any:
    return functools.reduce(lambda node, section: node[section], path, values)


@pytest.mark.parametrize(
    "values, key, value, message", [(RELEASED, *w) for w in WRONG] + [(OURS, *w) for w in WRONG_OURS]
)
def test_what_cannot_be_used_is_named(values, key, value, message):
    values = json.loads(json.dumps(values))
    *sections, last = key.split(".")
    section_at(values, sections)[last] = value
    with pytest.raises(UserError, match=message) as caught:
        folder_config(values, "config.json")
    assert str(caught.value).startswith("config.json")
    assert "\n" not in str(caught.value)


def test_a_config_that_a_model_came_with_is_kept():
    source: Any = copy.deepcopy(RELEASED) | {"tune_type_llm": "full", "dtype": "float16"}
    source["vision_config"]["median_filter_width"] = 7
    values = released_values(small_model(), Origin(), "bfloat16", source)
    assert values["tune_type_llm"] == "full"
    assert values["vision_config"]["median_filter_width"] == 7
    assert values["torch_dtype"] == values["text_config"]["torch_dtype"] == "bfloat16"
    assert "dtype" not in values
    assert folder_config(values, "x").model == small_model()


def test_a_width_that_no_name_says():
    from dataclasses import replace

    odd = replace(small_model(), connector_width=101)
    values = json.loads(json.dumps(released_values(odd, Origin(), "float32", {})))
    assert values["connector_type"] == "custom"
    assert folder_config(values, "x").model == odd
