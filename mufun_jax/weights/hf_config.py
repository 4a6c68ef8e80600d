"""Between the `config.json` of Hugging Face folders and our sizes, both ways.

What a file leaves out has the default of `transformers`' Qwen3Config or WhisperConfig: nested configs are saved as
differences from those. What our model does not compute (another activation, a sliding window, scaled rotary
positions) is an error, never passed over.

What `config.json` of the released kind has no key for is in its key `mufun_jax`: tapped layers, pooling, the width of
the connector, the most windows, and where the model is from. The authors' folders lack it.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass as checked_dataclass

from mufun_jax.config import CONVOLUTION_STRIDE, HOP_SAMPLES, DecoderConfig, EncoderConfig, ModelConfig
from mufun_jax.config_file import validate
from mufun_jax.errors import CheckpointError, ConfigError

FORMAT = 2  # of the key `mufun_jax`
OUR_KEY = "mufun_jax"
MODEL_TYPE = "tinyllava"
LARGEST = 2**24  # of any size in a config: more is damage, and would only exhaust memory
MOST_LAYERS = 512
MOST_WINDOWS = 10_000
_LARGEST_NUMBER = 1e30

# Layers whose hidden states are concatenated, by the encoder's number of layers: Whisper tiny, base, small, medium and
# large. The authors' code has large's; the others divide the depth alike.
KNOWN_TAPS = {4: (0, 1, 2, 4), 6: (0, 2, 4, 6), 12: (0, 3, 6, 12), 24: (0, 5, 11, 24), 32: (0, 7, 15, 32)}

# Defaults of transformers.Qwen3Config and transformers.WhisperConfig.
_QWEN3 = {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
}
_WHISPER = {
    "num_mel_bins": 80,
    "d_model": 384,
    "encoder_layers": 4,
    "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536,
    "max_source_positions": 1500,
}
# Keys that must have these values where they are given: our model computes nothing else.
_QWEN3_ONLY = {"model_type": "qwen3", "hidden_act": "silu", "attention_bias": False, "use_sliding_window": False}
_WHISPER_ONLY = {"model_type": "whisper", "activation_function": "gelu", "scale_embedding": False}
_QWEN3_ROPE_THETA = 10_000.0
_QWEN3_NORM_EPSILON = 1e-6


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class BaseModel:
    """A model that weights come from: its name, which parts, and its licence where it is known."""

    name: str
    parts: tuple[str, ...]
    license: str | None = None


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainedStage:
    """A stage of training that a model went through: its steps, its mixture by weight, and what trained."""

    name: str
    steps: NonNegativeInt
    mixture: dict[str, PositiveFloat]
    trained_parts: tuple[str, ...]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Origin:
    """Where a model comes from: the models it started from, and the stages since then, in order."""

    base_models: tuple[BaseModel, ...] = ()
    stages: tuple[TrainedStage, ...] = ()


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class OurKeys:
    """The key `mufun_jax` of a config."""

    format: int
    taps: tuple[int, ...]
    pool: PositiveInt
    connector_width: PositiveInt
    max_windows: PositiveInt
    origin: Origin = Origin()


@dataclass(frozen=True)
class FolderConfig:
    """What a folder's `config.json` says: our sizes, where the model is from, and the file itself."""

    model: ModelConfig
    origin: Origin
    values: dict[str, Any] = field(repr=False)


# --- from Hugging Face ----------------------------------------------------------------------------------------------


def decoder_config(values: Mapping[str, Any], where: str) -> DecoderConfig:
    """The decoder that a Qwen3 config describes. Raises ConfigError."""
    _require(values, _QWEN3_ONLY, where)
    kinds = values.get("layer_types")
    if kinds is not None and (not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds)):
        raise ConfigError(f"{where}: layer_types: only 'full_attention' is computed here")
    sizes = {key: _size(values, key, default, where) for key, default in _QWEN3.items()}
    tied = values.get("tie_word_embeddings", False)
    if not isinstance(tied, bool):
        raise ConfigError(f"{where}: tie_word_embeddings is {tied!r}, not true or false")
    if sizes["head_dim"] % 2:
        raise ConfigError(f"{where}: head_dim {sizes['head_dim']} is odd; rotary positions turn pairs")
    if sizes["num_hidden_layers"] > MOST_LAYERS:
        raise ConfigError(f"{where}: num_hidden_layers {sizes['num_hidden_layers']} is more than {MOST_LAYERS}")
    decoder = {
        "vocab_size": sizes["vocab_size"],
        "width": sizes["hidden_size"],
        "layers": sizes["num_hidden_layers"],
        "heads": sizes["num_attention_heads"],
        "kv_heads": sizes["num_key_value_heads"],
        "head_size": sizes["head_dim"],
        "mlp_width": sizes["intermediate_size"],
        "tied_embeddings": tied,
        "rope_theta": _rope_theta(values, where),
        "norm_epsilon": _number(values, "rms_norm_eps", _QWEN3_NORM_EPSILON, where),
    }
    return validate(DecoderConfig, decoder, where)


def encoder_config(
    values: Mapping[str, Any], where: str, taps: tuple[int, ...] | None = None, pool: int = 5
) -> EncoderConfig:
    """The encoder that a Whisper config describes, tapped at `taps` or where `KNOWN_TAPS` says. Raises ConfigError."""
    _require(values, _WHISPER_ONLY, where)
    sizes = {key: _size(values, key, default, where) for key, default in _WHISPER.items()}
    layers = sizes["encoder_layers"]
    if layers > MOST_LAYERS:
        raise ConfigError(f"{where}: encoder_layers {layers} is more than {MOST_LAYERS}")
    if taps is None and layers not in KNOWN_TAPS:
        known = ", ".join(map(str, KNOWN_TAPS))
        raise ConfigError(
            f"{where}: an encoder of {layers} layers has no known layer set (known: {known} layers); "
            f"say which with --taps, for instance --taps 0,{layers // 2},{layers}"
        )
    encoder = {
        "mel_bins": sizes["num_mel_bins"],
        "width": sizes["d_model"],
        "layers": layers,
        "heads": sizes["encoder_attention_heads"],
        "mlp_width": sizes["encoder_ffn_dim"],
        "taps": taps if taps is not None else KNOWN_TAPS[layers],
        "window_samples": sizes["max_source_positions"] * CONVOLUTION_STRIDE * HOP_SAMPLES,
        "pool": pool,
    }
    return validate(EncoderConfig, encoder, where)


def folder_config(values: dict[str, Any], where: str, taps: tuple[int, ...] | None = None) -> FolderConfig:
    """The sizes in a `config.json` of the released kind. `taps` are for an encoder whose layer set is not known.

    Raises:
        ConfigError: it is of another kind, contradicts itself, or describes what our model does not compute.
    """
    if values.get("model_type") != MODEL_TYPE:
        raise CheckpointError(
            f"{where}: no MuFun model (model_type {values.get('model_type')!r}, not {MODEL_TYPE!r}); "
            "a Whisper and a Qwen3 folder are joined by `mufun convert from-hf --whisper … --qwen3 …`"
        )
    ours = None
    if OUR_KEY in values:
        ours = validate(OurKeys, _section(values, OUR_KEY, where), f"{where}: {OUR_KEY}")
        if ours.format != FORMAT:
            raise CheckpointError(f"{where}: {OUR_KEY} is of format {ours.format}, this reads {FORMAT}")
        if ours.max_windows > MOST_WINDOWS:
            raise ConfigError(f"{where}: {OUR_KEY}.max_windows {ours.max_windows} is more than {MOST_WINDOWS}")
        if taps is not None and taps != ours.taps:
            raise ConfigError(f"{where}: the layer set is {list(ours.taps)}, not {list(taps)}")
        taps = ours.taps
    decoder = decoder_config(_section(values, "text_config", where), f"{where}: text_config")
    vision = _section(values, "vision_config", where)
    encoder = encoder_config(vision, f"{where}: vision_config", taps, ours.pool if ours else 5)
    _must_be(values, "hidden_size", decoder.width, where)
    _must_be(values, "vision_hidden_size", encoder.width, where)
    connector_width = _connector_width(values.get("connector_type"), encoder, ours, where)
    extra = {"max_windows": ours.max_windows} if ours else {}
    model = ModelConfig(encoder, connector_width, decoder, **extra)
    return FolderConfig(model, ours.origin if ours else Origin(), values)


def _connector_width(kind: Any, encoder: EncoderConfig, ours: OurKeys | None, where: str) -> int:
    """Hidden width of `blp_{n}i_{m}x`: n tapped layers side by side, times m."""
    features = len(encoder.taps) * encoder.width
    if kind == _CUSTOM_CONNECTOR and ours is not None:
        return ours.connector_width
    match = re.fullmatch(r"blp_(\d{1,3})i_(\d{1,3})x", kind) if isinstance(kind, str) else None
    if match is None:
        raise ConfigError(f"{where}: connector_type {kind!r} is not known; MuFun's is 'blp_4i_2x'")
    inputs, times = int(match[1]), int(match[2])
    if inputs != len(encoder.taps):
        raise ConfigError(
            f"{where}: connector_type {kind!r} takes {inputs} tapped layers, the layer set {list(encoder.taps)} "
            f"has {len(encoder.taps)}"
        )
    if ours is not None and ours.connector_width != times * features:
        raise ConfigError(
            f"{where}: connector_type {kind!r} is {times * features} wide, but {OUR_KEY} says {ours.connector_width}"
        )
    if times == 0:
        raise ConfigError(f"{where}: connector_type {kind!r} has no width")
    return times * features


def _rope_theta(values: Mapping[str, Any], where: str) -> float:
    """`rope_theta`, or `rope_parameters` as newer files have it; scaled positions are an error."""
    for key in ("rope_parameters", "rope_scaling"):
        scaling = values.get(key)
        if scaling is None:
            continue
        if not isinstance(scaling, dict):
            raise ConfigError(f"{where}: {key} is {scaling!r}")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise ConfigError(f"{where}: rotary positions of type {kind!r} are not computed here, only 'default'")
        if "rope_theta" in scaling:
            return _number(scaling, "rope_theta", _QWEN3_ROPE_THETA, f"{where}: {key}")
    return _number(values, "rope_theta", _QWEN3_ROPE_THETA, where)


def _require(values: Mapping[str, Any], only: Mapping[str, Any], where: str) -> None:
    for key, wanted in only.items():
        _must_be(values, key, wanted, where)


def _must_be(values: Mapping[str, Any], key: str, wanted: Any, where: str) -> None:
    """Where a key is given, and not null, it has this value."""
    found = values.get(key)
    if found is not None and (type(found) is not type(wanted) or found != wanted):
        raise ConfigError(f"{where}: {key} is {found!r}, where only {wanted!r} can be used")


def _section(values: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    section = values.get(key)
    if not isinstance(section, dict):
        raise ConfigError(f"{where}: has no section {key}")
    return section


def _size(values: Mapping[str, Any], key: str, default: int, where: str) -> int:
    found = values.get(key, default)
    if type(found) is not int or not 0 < found <= LARGEST:
        raise ConfigError(f"{where}: {key} is {found!r}, not a number from 1 to {LARGEST}")
    return found


def _number(values: Mapping[str, Any], key: str, default: float, where: str) -> float:
    found = values.get(key, default)
    if type(found) not in (int, float) or not 0 < found < _LARGEST_NUMBER:
        raise ConfigError(f"{where}: {key} is {found!r}, not a number above 0")
    return float(found)


# --- to Hugging Face ------------------------------------------------------------------------------------------------

_CUSTOM_CONNECTOR = "custom"  # a width that no blp name says; only this project reads it
# The authors' code chooses classes by these names: Qwen3 by width, Whisper by layers.
_QWEN3_NAMES = {
    1024: "Qwen/Qwen3-0.6B-Base",
    2048: "Qwen/Qwen3-1.7B-Base",
    2560: "Qwen/Qwen3-4B-Base",
    4096: "Qwen/Qwen3-8B-Base",
    5120: "Qwen/Qwen3-14B-Base",
}
_WHISPER_NAMES = {
    4: "openai/whisper-tiny",
    6: "openai/whisper-base",
    12: "openai/whisper-small",
    24: "openai/whisper-medium",
    32: "openai/whisper-large-v3",
}


def qwen3_values(config: DecoderConfig) -> dict[str, Any]:
    """A Qwen3 config of these sizes, in the keys that old and new `transformers` read."""
    return {
        **_QWEN3_ONLY,
        "architectures": ["Qwen3ForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.mlp_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "max_position_embeddings": 32_768,
    }


def whisper_values(config: EncoderConfig) -> dict[str, Any]:
    """A Whisper config with this encoder."""
    return {
        **_WHISPER_ONLY,
        "architectures": ["WhisperEncoder"],
        "num_mel_bins": config.mel_bins,
        "d_model": config.width,
        "encoder_layers": config.layers,
        "num_hidden_layers": config.layers,
        "encoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.mlp_width,
        "max_source_positions": config.frames,
    }


def section_values(ours: Mapping[str, Any], source: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """A part's config: what it came with, our keys where that has none, and the dtype that was written."""
    return {**ours, **{key: value for key, value in source.items() if key != "dtype"}, "torch_dtype": dtype}


def released_values(config: ModelConfig, origin: Origin, dtype: str, source: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` of the released kind. What `source`, the config that a model came with, says beside, is kept."""
    features = len(config.encoder.taps) * config.encoder.width
    times, rest = divmod(config.connector_width, features)
    kind = f"blp_{len(config.encoder.taps)}i_{times}x" if times and not rest else _CUSTOM_CONNECTOR
    ours = OurKeys(FORMAT, config.encoder.taps, config.encoder.pool, config.connector_width, config.max_windows, origin)
    values = {
        "llm_model_name_or_path": _QWEN3_NAMES.get(config.decoder.width, _QWEN3_NAMES[4096]),
        "vision_model_name_or_path": _WHISPER_NAMES.get(config.encoder.layers, _WHISPER_NAMES[32]),
        "vision_model_name_or_path2": "",
        "image_aspect_ratio": "audio",
        "image_token_index": -200,
        "ignore_index": -100,
        "pad_token": "<|endoftext|>",
        "tokenizer_padding_side": "right",
        "tokenizer_use_fast": False,
        "use_cache": True,
        "tokenizer_model_max_length": 4096,
        **source,
        "architectures": ["TinyLlavaForConditionalGeneration"],
        "model_type": MODEL_TYPE,
        "connector_type": kind,
        "hidden_size": config.decoder.width,
        "vocab_size": config.decoder.vocab_size,
        "vision_hidden_size": config.encoder.width,
        "text_config": section_values(qwen3_values(config.decoder), source.get("text_config", {}), dtype),
        "vision_config": section_values(whisper_values(config.encoder), source.get("vision_config", {}), dtype),
        "torch_dtype": dtype,
        OUR_KEY: asdict(ours),
    }
    values.pop("auto_map", None)  # names code that lies in the folder it came from; none of it is copied or run
    values.pop("dtype", None)  # the newer name of torch_dtype
    return values
