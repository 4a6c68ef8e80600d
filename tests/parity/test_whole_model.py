"""The whole model, from int16 samples and token ids to logits, against PyTorch with the same random weights."""

from dataclasses import dataclass

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
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.text.splice import splice
from mufun_jax.text.tokenizer import TextPiece
from mufun_jax.train.loss import masked_cross_entropy
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


def one_row(config: ModelConfig, examples: list[EncodedExample], spare: int = 0) -> Batch:
    """A batch of one row that holds the examples and `spare` unused positions, windows and targets."""
    positions = sum(len(example.tokens) for example in examples) + spare
    budget = Budget(positions, sum(len(example.samples) for example in examples) + spare, positions)
    row = build_row(examples, budget, config.encoder.window_samples, config.encoder.tokens_per_window)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], row)


def our_logits(config: ModelConfig, params, examples: list[Example], spare: int = 0, dtype=jnp.float32):
    """Logits at every position of each example, packed in one row."""
    encoded = [example.encoded(config) for example in examples]
    batch = one_row(config, encoded, spare)
    logits = np.asarray(jax.jit(MuFunModel(config, dtype).apply)({"params": params}, batch))[0]
    ends = np.cumsum([len(example.tokens) for example in encoded])
    return np.split(logits[: ends[-1]], ends[:-1])


@pytest.fixture(params=MODELS.values(), ids=list(MODELS), scope="module")
def reference(request) -> ReferenceModel:
    return ReferenceModel(request.param)


@pytest.mark.parametrize("spare", [0, 3], ids=["exact", "padded"])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_example(reference, shape, spare):
    config = reference.config
    example = make_example(config, shape)
    if not example.files and not spare:
        pytest.xfail("a row without windows has no audio to encode: training rows always have at least one")
    with torch.no_grad():
        expected = reference.logits(example.pieces, example.files)
    (ours,) = our_logits(config, params_of(reference), [example], spare)
    assert relative_error(ours, expected) < TOLERANCE


def test_examples_packed_in_one_row_are_as_if_alone(reference):
    config, params = reference.config, params_of(reference)
    examples = [make_example(config, shape, seed) for seed, shape in enumerate(SHAPES)]
    packed = our_logits(config, params, examples, spare=2)
    for example, ours in zip(examples, packed, strict=True):
        with torch.no_grad():
            expected = reference.logits(example.pieces, example.files)
        assert relative_error(ours, expected) < TOLERANCE


@pytest.mark.parametrize("shape", SHAPES)
def test_prefill_gives_the_last_logits(reference, shape):
    config = reference.config
    example = make_example(config, shape)
    encoded = example.encoded(config)
    padding = 4
    prompts = Prompts(
        tokens=np.pad(encoded.tokens, (0, padding))[None],
        audio_slot=np.pad(encoded.audio_slot, (0, padding), constant_values=-1)[None],
        lengths=np.array([len(encoded.tokens)], np.int32),
        samples=(encoded.samples / np.float32(32768))[None],
    )
    with torch.no_grad():
        expected = reference.logits(example.pieces, example.files)[-1:]
    ours = next_token_logits(MuFunModel(config), params_of(reference), prompts)
    assert relative_error(ours, expected) < TOLERANCE


@pytest.mark.parametrize("rematerialize", [False, True])
def test_gradients_of_the_loss(reference, rematerialize):
    """Of every parameter, each against the largest of its own gradients: 1e-4."""
    config = reference.config
    example = make_example(config, "two songs")
    encoded = example.encoded(config)
    batch = one_row(config, [encoded], spare=2)
    reference.zero_grad()
    logits = reference.logits(example.pieces, example.files)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(encoded.targets, dtype=torch.long))
    expected.backward()

    def loss_of(params):
        logits = MuFunModel(config, rematerialize=rematerialize).apply({"params": params}, batch)
        return masked_cross_entropy(logits, batch.targets, batch.target_weights)[0]

    loss, gradients = jax.jit(jax.value_and_grad(loss_of))(params_of(reference))
    assert abs(float(loss) - expected.item()) < 1e-5 * expected.item()
    compared = jax.tree.map(relative_error, gradients, gradients_of(reference))
    worst = max(jax.tree_util.tree_leaves_with_path(compared), key=lambda item: item[1])
    assert worst[1] < 1e-4, worst


def test_bfloat16_is_as_near_to_the_truth_as_pytorchs(reference):
    """Weights are bfloat16 numbers everywhere, so that only the arithmetic differs from the float32 truth.

    Roundings fall differently here and there, so neither result can be held to the other more tightly than both to
    the truth. But they do as many: our root mean square error over all logits must not be above PyTorch's by more
    than the scatter between two draws, and in itself not above 3 units of 2^-8 of the logits' own size.
    """
    config = reference.config
    rounded = ReferenceModel(config, seed=3).to(torch.bfloat16)
    exact = ReferenceModel(config, seed=3).to(torch.bfloat16).float()
    params = params_of(exact)
    errors = {"ours": [], "torch": []}
    sizes = []
    for seed in range(3):
        example = make_example(config, "two songs", seed)
        with torch.no_grad():
            truth = exact.logits(example.pieces, example.files).numpy()
            theirs = rounded.logits(example.pieces, example.files).float().numpy()
        (ours,) = our_logits(config, params, [example], dtype=jnp.bfloat16)
        errors["ours"].append(np.square(ours - truth).mean())
        errors["torch"].append(np.square(theirs - truth).mean())
        sizes.append(np.square(truth).mean())
    ours, theirs, size = (float(np.sqrt(np.mean(x))) for x in (errors["ours"], errors["torch"], sizes))
    print("BF16", ours/size, theirs/size)
    assert ours < 1.2 * theirs
    assert ours < 3 * 2**-8 * size
