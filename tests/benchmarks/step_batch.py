"""A batch like those of training: packed rows of examples, filled with noise."""

from collections.abc import Sequence

import jax
import numpy as np

from data_pipelines.encode import Budget, EncodedExample
from data_pipelines.pack import build_row
from mufun_jax.batch import Batch
from mufun_jax.config import EncoderConfig, ModelConfig, StageConfig
from mufun_jax.text.splice import splice
from mufun_jax.text.tokenizer import TextPiece
from tests.tiny import random_windows

TEXT, ANSWER = 62, 7  # tokens of an example, and how many of them, at its end, are targets


def make_batch(model: ModelConfig, stage: StageConfig, rows: Sequence[Sequence[int]], seed: int) -> Batch:
    """A batch of a stage: noise with tones for audio, random tokens for text, packed as training packs."""
    rng = np.random.default_rng(seed)
    encoder, vocabulary = model.encoder, model.decoder.vocab_size
    budget = Budget(stage.positions, stage.windows, stage.targets)
    packed = [
        build_row(
            [make_example(rng, windows, encoder, vocabulary) for windows in row],
            budget,
            encoder.window_samples,
            encoder.tokens_per_window,
        )
        for row in rows
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *packed)


def make_example(rng: np.random.Generator, windows: int, encoder: EncoderConfig, vocabulary: int) -> EncodedExample:
    before, after = (rng.integers(0, vocabulary, TEXT // 2).tolist() for _ in range(2))
    pieces = [TextPiece(tuple(ids), (False,) * len(ids)) for ids in (before, after)]
    spliced = splice(pieces, [windows], encoder.tokens_per_window)
    length = len(spliced.tokens)
    target_index = np.arange(length - 1 - ANSWER, length - 1, dtype=np.int32)
    samples = random_windows(rng, windows, encoder.window_samples)
    return EncodedExample(
        spliced.tokens, spliced.audio_slot, samples, target_index, spliced.tokens[target_index + 1], 0
    )
