"""Model sizes by name. Whisper-large-v3 with any dense Qwen3, and the nano model that a laptop trains."""

from dataclasses import replace

from mufun_jax.config import SAMPLE_RATE, DecoderConfig, EncoderConfig, ModelConfig
from mufun_jax.errors import ConfigError, nearest

WHISPER_LARGE_V3 = EncoderConfig(mel_bins=128, width=1280, layers=32, heads=20, mlp_width=5120, taps=(0, 7, 15, 32))
WHISPER_BASE = EncoderConfig(mel_bins=80, width=512, layers=6, heads=8, mlp_width=2048, taps=(0, 2, 4, 6))


def _qwen3(width: int, layers: int, heads: int, mlp_width: int, *, tied: bool) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=151_936,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=8,
        head_size=128,
        mlp_width=mlp_width,
        tied_embeddings=tied,
    )


def _mufun(encoder: EncoderConfig, decoder: DecoderConfig) -> ModelConfig:
    """`blp_4i_2x`: four tapped layers in, twice that as the hidden width."""
    return ModelConfig(encoder, connector_width=2 * len(encoder.taps) * encoder.width, decoder=decoder)


PRESETS: dict[str, ModelConfig] = {
    "nano": ModelConfig(
        encoder=EncoderConfig(
            mel_bins=80,
            width=128,
            layers=4,
            heads=4,
            mlp_width=256,
            taps=(0, 1, 2, 4),
            window_samples=3 * SAMPLE_RATE,
        ),
        connector_width=1024,
        decoder=DecoderConfig(
            vocab_size=512,
            width=128,
            layers=3,
            heads=4,
            kv_heads=2,
            head_size=32,
            mlp_width=256,
            tied_embeddings=True,
            rope_theta=10_000.0,
        ),
    ),
    "mufun_0_6b": _mufun(WHISPER_LARGE_V3, _qwen3(1024, 28, 16, 3072, tied=True)),
    "mufun_1_7b": _mufun(WHISPER_LARGE_V3, _qwen3(2048, 28, 16, 6144, tied=True)),
    "mufun_4b": _mufun(WHISPER_LARGE_V3, _qwen3(2560, 36, 32, 9728, tied=True)),
    "mufun_8b": _mufun(WHISPER_LARGE_V3, _qwen3(4096, 36, 32, 12288, tied=False)),
}


# The same weights, trained to hear longer: 10 tokens a second, 12,000 and 36,000 of them.
PRESETS["mufun_8b_20min"] = replace(PRESETS["mufun_8b"], max_windows=40)
PRESETS["mufun_8b_60min"] = replace(PRESETS["mufun_8b"], max_windows=120)


def preset(name: str) -> ModelConfig:
    """The sizes of a named model. Raises ConfigError, with the nearest name, for an unknown one."""
    if name not in PRESETS:
        raise ConfigError(f"no model preset {name!r}{nearest(name, list(PRESETS))}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
