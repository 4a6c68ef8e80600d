"""The whole model, from int16 samples and token ids to logits, against PyTorch with the same random weights."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data_pipelines.encode import Budget, EncodedExample
from data_pipelines.pack import build_row
from mufun_jax.batch import Batch
from mufun_jax.config import SAMPLE_RATE, ModelConfig
from mufun_jax.generate.decode import Prompts, next_token_logits
from mufun_jax.model.compute import Compute
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.text.splice import splice
from mufun_jax.text.tokenizer import TextPiece
from mufun_jax.train.loss import weighted_sums
from tests.parity.reference_model import ReferenceModel, gradients_of, params_of
from tests.tiny import random_windows, relative_error, tiny_decoder, tiny_encoder, tiny_model

TOLERANCE = 1e-5

MODELS = {
    "tied": tiny_model(),
    "untied, one tap, 128 mels, windows of 2 s": tiny_model(
        tiny_encoder(mel_bins=128, layers=2, taps=(2,), width=20, heads=5, window_samples=2 * SAMPLE_RATE),
        tiny_decoder(tied_embeddings=False, heads=5, kv_heads=1, head_size=8, vocab_size=83),
    ),
}

# For each file, its windows; one more piece of text than files, each with its number of tokens (0: nothing there).
SHAPES = {
    "text only": ([], [17]),
    "one window": ([1], [5, 9]),
    "one song of three windows": ([3], [5, 9]),
    "two songs": ([2, 1], [4, 3, 8]),
    "songs side by side, at the very start and end": ([1, 2], [0, 0, 0]),
}


@dataclass(frozen=True)
class Example:
    """Token ids of the text pieces, and the int16 windows of the files between them."""

    pieces: list[list[int]]
    files: list[np.ndarray]

    def encoded(self, config: ModelConfig) -> EncodedExample:
        """Every position is asked for its logits; what they should predict is drawn."""
        pieces = [TextPiece(tuple(ids), (True,) * len(ids)) for ids in self.pieces]
        spliced = splice(pieces, [len(file) for file in self.files], config.encoder.tokens_per_window)
        length = len(spliced.tokens)
        windows = np.concatenate([np.zeros((0, config.encoder.window_samples), np.int16), *self.files])
        targets = np.random.default_rng(length).integers(0, config.decoder.vocab_size, length).astype(np.int32)
        return EncodedExample(
            spliced.tokens, spliced.audio_slot, windows, np.arange(length, dtype=np.int32), targets, 0
        )


def make_example(config: ModelConfig, shape: str, seed: int = 0) -> Example:
    windows, lengths = SHAPES[shape]
    rng = np.random.default_rng(seed)
    pieces = [rng.integers(0, config.decoder.vocab_size, length).tolist() for length in lengths]
    return Example(pieces, [random_windows(rng, count, config.encoder.window_samples) for count in windows])


@partial(jax.jit, static_argnums=0)
def apply_model(model: MuFunModel, params, batch: Batch):
    return model.apply({"params": params}, batch)


def one_row(config: ModelConfig, examples: list[EncodedExample], budget: Budget) -> Batch:
    row = build_row(examples, budget, config.encoder.window_samples, config.encoder.tokens_per_window)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], row)


def our_logits(reference: ReferenceModel, examples: list[Example], budget: Budget, dtype=jnp.float32):
    """Logits at every position of each example, packed in one row."""
    config = reference.config
    encoded = [example.encoded(config) for example in examples]
    batch = one_row(config, encoded, budget)
    logits = np.asarray(apply_model(MuFunModel(config, Compute(dtype)), params_of(reference), batch))[0]
    ends = np.cumsum([len(example.tokens) for example in encoded])
    return np.split(logits[: ends[-1]], ends[:-1])


def room_for_all(config: ModelConfig) -> Budget:
    """A row that holds one example of each shape, and 7 positions, a window and 7 targets that stay unused."""
    windows = sum(sum(windows) for windows, _ in SHAPES.values())
    positions = windows * config.encoder.tokens_per_window + sum(sum(lengths) for _, lengths in SHAPES.values())
    return Budget(positions + 7, windows + 1, positions + 7)


@pytest.fixture(params=MODELS.values(), ids=list(MODELS), scope="module")
def reference(request) -> ReferenceModel:
    return ReferenceModel(request.param)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_example_with_padding_after_it(reference, shape):
    example = make_example(reference.config, shape)
    with torch.no_grad():
        expected = reference.logits(example.pieces, example.files)
    (ours,) = our_logits(reference, [example], room_for_all(reference.config))
    assert relative_error(ours, expected) < TOLERANCE


def test_examples_packed_in_one_row_are_as_if_alone(reference):
    examples = [make_example(reference.config, shape, seed) for seed, shape in enumerate(SHAPES)]
    packed = our_logits(reference, examples, room_for_all(reference.config))
    for example, ours in zip(examples, packed, strict=True):
        with torch.no_grad():
            expected = reference.logits(example.pieces, example.files)
        assert relative_error(ours, expected) < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
def test_prefill_gives_the_last_logits(reference, shape):
    """From float32 samples, as at inference; prompts are padded."""
    config = reference.config
    example = make_example(config, shape)
    encoded = example.encoded(config)
    count, length = len(encoded.tokens), 20 + 3 * config.encoder.tokens_per_window
    samples = np.zeros((3 if example.files else 0, config.encoder.window_samples), np.float32)
    samples[: len(encoded.samples)] = encoded.samples / np.float32(32768)
    prompts = Prompts(
        tokens=np.pad(encoded.tokens, (0, length - count))[None],
        audio_slot=np.pad(encoded.audio_slot, (0, length - count), constant_values=-1)[None],
        lengths=np.array([count], np.int32),
        samples=samples[None],
    )
    with torch.no_grad():
        expected = reference.logits(example.pieces, example.files)[-1:]
    ours = next_token_logits(MuFunModel(config), params_of(reference), prompts)
    assert relative_error(ours, expected) < TOLERANCE


def test_gradients_of_the_loss():
    """Of every parameter, each against the largest of its own gradients: 1e-4, through rematerialised layers.

    The row is filled to its last position, window and target.
    """
    reference = ReferenceModel(MODELS["tied"])
    config = reference.config
    example = make_example(config, "two songs")
    encoded = example.encoded(config)
    length, windows = len(encoded.tokens), len(encoded.samples)
    batch = one_row(config, [encoded], Budget(length, windows, length))
    expected_logits = reference.logits(example.pieces, example.files)
    expected = torch.nn.functional.cross_entropy(expected_logits, torch.tensor(encoded.targets, dtype=torch.long))
    expected.backward()
    model = MuFunModel(config, Compute(remat="layer"))

    def loss_of(params):
        tokens: Any = model.apply({"params": params}, batch, method=MuFunModel.losses)
        return weighted_sums(tokens, batch.target_weights, batch.target_set, 1)[0] / batch.target_weights.sum()

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params_of(reference))
    assert abs(float(loss) - expected.item()) < TOLERANCE * expected.item()
    compared = jax.tree.map(relative_error, gradients, gradients_of(reference))
    worst = max(jax.tree_util.tree_leaves_with_path(compared), key=lambda item: item[1])
    assert worst[1] < 1e-4, worst


def test_bfloat16_is_as_near_to_the_truth_as_pytorchs():
    """Weights are bfloat16 numbers everywhere, so that only the arithmetic differs from the float32 truth.

    Roundings fall differently here and there, so neither result can be held to the other more tightly than both to
    the truth. But they do as many: our root mean square error over all logits must not be above PyTorch's by more
    than the scatter between draws (0.8 to 1.1 times PyTorch's over 12 of them), and in itself not above 4 units of
    2^-8, bfloat16's rounding, of the logits' own size.
    """
    config = MODELS["tied"]
    rounded = ReferenceModel(config).to(torch.bfloat16)
    exact = ReferenceModel(config).to(torch.bfloat16).float()
    errors = {"ours": [], "torch": []}
    sizes = []
    for seed in range(3):
        example = make_example(config, "two songs", seed)
        with torch.no_grad():
            truth = exact.logits(example.pieces, example.files).numpy()
            theirs = rounded.logits(example.pieces, example.files).float().numpy()
        (ours,) = our_logits(exact, [example], room_for_all(config), jnp.bfloat16)
        errors["ours"].append(np.square(ours - truth).mean())
        errors["torch"].append(np.square(theirs - truth).mean())
        sizes.append(np.square(truth).mean())
    ours, theirs, size = (float(np.sqrt(np.mean(x))) for x in (errors["ours"], errors["torch"], sizes))
    assert ours < 1.2 * theirs
    assert ours < 4 * 2**-8 * size
