"""Tiny models with awkward sizes, for tests."""

import functools

import jax
import numpy as np
from flax.linen import meta

from mufun_jax.config import SAMPLE_RATE, DecoderConfig, EncoderConfig, ModelConfig
from mufun_jax.weights.params import Params, abstract_params


def tiny_encoder(**changes) -> EncoderConfig:
    """Windows of one second, 10 tokens; odd numbers of heads and layers."""
    sizes = dict(mel_bins=80, width=24, layers=3, heads=3, mlp_width=40, taps=(0, 1, 3), window_samples=SAMPLE_RATE)
    return EncoderConfig(**{**sizes, **changes})


def tiny_decoder(**changes) -> DecoderConfig:
    """Three query heads share a key/value head, and head_size is not width / heads."""
    sizes = dict(
        vocab_size=61, width=28, layers=3, heads=6, kv_heads=2, head_size=10, mlp_width=44, tied_embeddings=True
    )
    return DecoderConfig(**{**sizes, **changes})


def tiny_model(
    encoder: EncoderConfig | None = None, decoder: DecoderConfig | None = None, max_windows: int = 3
) -> ModelConfig:
    return ModelConfig(encoder or tiny_encoder(), 34, decoder or tiny_decoder(), max_windows)


# With the nano tokenizer; one layer each, for tests of what stands around the model.
SMALLEST = tiny_model(tiny_encoder(layers=1, taps=(1,)), tiny_decoder(vocab_size=512, layers=1), max_windows=4)


@functools.cache
def param_shapes(config: ModelConfig) -> Params:
    """The tree of shapes and dtypes, without logical axes."""
    return meta.unbox(abstract_params(config))


def random_params(config: ModelConfig, seed: int = 0) -> Params:
    """Every parameter drawn, biases and norms too: none is left where a fresh model has it."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        noise = rng.standard_normal(leaf.shape, np.float32)
        return {"scale": 1 + 0.3 * noise, "kernel": noise * np.float32(_fan_in(leaf.shape) ** -0.5)}.get(
            name, 0.3 * noise
        )

    return jax.tree_util.tree_map_with_path(draw, param_shapes(config))


def random_windows(rng: np.random.Generator, count: int, window_samples: int) -> np.ndarray:
    """int16 noise with tones in it; the last window ends in silence, as a padded one does."""
    t = np.arange(count * window_samples) / SAMPLE_RATE
    sound = 0.2 * np.sin(2 * np.pi * rng.uniform(100, 2000) * t) + 0.1 * rng.standard_normal(t.size)
    sound[len(sound) - window_samples // 3 :] = 0
    return np.rint(sound * 32767).astype(np.int16).reshape(count, window_samples)


def relative_error(ours, reference) -> float:
    """The largest difference, as a part of the largest reference value."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert ours.shape == reference.shape, (ours.shape, reference.shape)
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


def _fan_in(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-1][-2:]))
