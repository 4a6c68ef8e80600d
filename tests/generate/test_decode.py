"""Cached decoding against the whole forward pass, batches against single prompts, sampling against its distribution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mufun_jax.batch import Batch
from mufun_jax.errors import UserError
from mufun_jax.generate.decode import Prompts, generate, next_token_logits
from mufun_jax.generate.sample import Sampling, sample
from mufun_jax.model.mufun import MuFunModel
from tests.tiny import random_params, random_windows, relative_error, tiny_decoder, tiny_encoder, tiny_model

# Untied: a tied head with random weights says the last token again and again.
CONFIG = tiny_model(tiny_encoder(layers=2, taps=(0, 2)), tiny_decoder(layers=2, tied_embeddings=False))
MODEL = MuFunModel(CONFIG)
PARAMS = random_params(CONFIG)
NEVER = jnp.int32(-7)  # no token is this end of turn
NEW = 8
GREEDY = Sampling()

# (windows, tokens of text before and after them): one prompt a line.
PROMPTS = [(2, 3, 9), (0, 0, 5), (1, 0, 1), (0, 12, 30), (3, 7, 4)]


def make_prompts(shapes: list[tuple[int, int, int]], length: int = 64, windows: int = 3) -> Prompts:
    per_window = CONFIG.encoder.tokens_per_window
    rows = len(shapes)
    tokens, slots = np.full((rows, length), 60, np.int32), np.full((rows, length), -1, np.int32)
    samples = np.zeros((rows, windows, CONFIG.encoder.window_samples), np.float32)
    lengths = np.zeros(rows, np.int32)
    for row, (count, before, after) in enumerate(shapes):
        rng = np.random.default_rng([count, before, after])
        audio = count * per_window
        lengths[row] = before + audio + after
        tokens[row, : lengths[row]] = rng.integers(0, CONFIG.decoder.vocab_size, lengths[row])
        slots[row, before : before + audio] = np.arange(audio)
        if count:
            samples[row, :count] = random_windows(rng, count, CONFIG.encoder.window_samples) / 32768
    return Prompts(tokens, slots, lengths, samples)


def row_of(prompts: Prompts, row: int) -> Prompts:
    return jax.tree.map(lambda leaf: leaf[row : row + 1], prompts)


@jax.jit
def all_logits(params, prompts: Prompts, tokens):
    """The uncached forward pass that trains: logits at every position of every row."""
    rows, length = tokens.shape
    everywhere = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (rows, length))
    batch = Batch(
        tokens=tokens,
        audio_slot=jnp.pad(prompts.audio_slot, ((0, 0), (0, length - prompts.audio_slot.shape[1])), constant_values=-1),
        positions=everywhere,
        segment_ids=jnp.ones((rows, length), jnp.int32),
        samples=prompts.samples,
        window_mask=jnp.ones(prompts.samples.shape[:2], bool),
        target_index=everywhere,
        targets=tokens,
        target_weights=jnp.ones((rows, length), jnp.float32),
        target_set=jnp.zeros((rows, length), jnp.int32),
    )
    return MODEL.apply({"params": params}, batch)


@partial(jax.jit, static_argnames="sampling")
def draw_many(logits, sampling: Sampling, keys):
    return jax.vmap(lambda key: sample(logits, sampling, key))(keys)


def run(prompts: Prompts, *, sampling=GREEDY, seed=0, end=NEVER, new=NEW):
    tokens, lengths = generate(MODEL, PARAMS, prompts, end, jax.random.key(seed), max_new_tokens=new, sampling=sampling)
    return np.asarray(tokens), np.asarray(lengths)


@pytest.fixture(scope="module")
def greedy() -> np.ndarray:
    return run(make_prompts(PROMPTS))[0]


def test_each_token_is_what_the_whole_forward_pass_says(greedy):
    prompts = make_prompts(PROMPTS)
    tokens = np.pad(prompts.tokens, ((0, 0), (0, NEW)))
    for step in range(NEW):
        logits = np.asarray(all_logits(PARAMS, prompts, tokens))
        at = prompts.lengths + step
        tokens[np.arange(len(at)), at] = logits[np.arange(len(at)), at - 1].argmax(-1)
        np.testing.assert_array_equal(greedy[:, step], tokens[np.arange(len(at)), at])
    assert len({tuple(row) for row in greedy.tolist()}) == len(PROMPTS), "the prompts have different answers"
    assert len(np.unique(greedy)) > NEW, "and many different tokens"


def test_a_prompt_in_a_batch_gets_what_it_gets_alone(greedy):
    prompts = make_prompts(PROMPTS)
    for row in range(len(PROMPTS)):
        alone, _ = run(row_of(prompts, row))
        np.testing.assert_array_equal(alone[0], greedy[row])


def test_a_text_prompt_without_any_window_gets_the_same(greedy):
    text_only = make_prompts([PROMPTS[1]], length=5, windows=0)
    np.testing.assert_array_equal(run(text_only)[0][0], greedy[1])


def test_prefill_gives_the_uncached_logits():
    prompts = make_prompts(PROMPTS)
    whole = np.asarray(all_logits(PARAMS, prompts, prompts.tokens))
    expected = whole[np.arange(len(PROMPTS)), prompts.lengths - 1]
    logits = next_token_logits(MODEL, PARAMS, prompts)
    assert logits.dtype == jnp.float32
    assert relative_error(logits, expected) < 1e-5


def test_a_row_stops_at_the_end_of_its_turn_and_others_go_on(greedy):
    prompts = make_prompts(PROMPTS)
    # An end in the midst of some row, after which that row would say something else, and that some row never says.
    end = next(
        int(token)
        for row in greedy
        for step, token in enumerate(row[:-1])
        if step and token not in row[:step] and row[step + 1] != token and not (greedy == token).any(1).all()
    )
    tokens, lengths = run(prompts, end=jnp.int32(end))
    for number, expected in enumerate(greedy.tolist()):
        length = expected.index(end) if end in expected else NEW
        assert lengths[number] == length
        assert tokens[number].tolist() == expected[:length] + [end] * (NEW - length)
    assert lengths.min() < NEW
    assert lengths.max() == NEW


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(0.0, top_p=0.5, top_k=7),
        Sampling(1.0, top_k=1),
        Sampling(5.0, top_p=1e-6),
        Sampling(1e-4),
    ],
    ids=["default", "temperature 0", "top_k 1", "top_p tiny", "temperature tiny"],
)
def test_these_are_greedy(sampling):
    logits = jax.random.normal(jax.random.key(0), (200, 61))
    drawn = draw_many(logits, sampling, jax.random.split(jax.random.key(1), 5))
    np.testing.assert_array_equal(drawn, np.broadcast_to(logits.argmax(-1), drawn.shape))


def test_a_seed_draws_the_same_again_and_each_step_and_row_apart():
    """All tokens are as likely, so a row of one repeated token would betray a repeated key."""
    prompts = make_prompts(PROMPTS)
    first, again, other = (run(prompts, sampling=Sampling(1e6), seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert all(len(set(row)) > NEW / 2 for row in first.tolist())
    assert len({tuple(row) for row in first.tolist()}) == len(PROMPTS)


@pytest.mark.parametrize(
    "sampling, kept",
    [
        (Sampling(1.0), 6),
        (Sampling(2.5), 6),
        (Sampling(1.0, top_k=3), 3),
        (Sampling(1.0, top_p=0.8), 3),  # 0.4, 0.65, 0.85: the third crosses
        (Sampling(1.0, top_p=0.6), 2),
        (Sampling(1.0, top_k=2, top_p=0.99), 2),
        (Sampling(0.5, top_p=0.8), 2),  # of the squares, renormalised: 0.57, 0.80
    ],
    ids=str,
)
def test_frequencies_are_those_of_the_distribution(sampling, kept):
    """20,000 draws for each of two rows; each frequency within 4 standard deviations, and nothing else drawn."""
    draws = 20_000
    order = np.array([[0, 1, 2, 3, 4, 5], [4, 2, 5, 0, 3, 1]])
    probabilities = np.array([0.40, 0.25, 0.20, 0.08, 0.05, 0.02])
    logits = np.zeros((2, 6))
    logits[np.arange(2)[:, None], order] = np.log(probabilities) + 3
    keys = jax.random.split(jax.random.key(1), draws)
    drawn = np.asarray(draw_many(jnp.asarray(logits, jnp.float32), sampling, keys))
    tempered = np.where(np.arange(6) < kept, probabilities ** (1 / sampling.temperature), 0)
    tempered /= tempered.sum()
    for row in range(2):
        frequencies = np.bincount(drawn[:, row], minlength=6)[order[row]] / draws
        deviation = np.sqrt(tempered * (1 - tempered) / draws)
        assert (np.abs(frequencies - tempered) <= 4 * deviation).all(), (row, frequencies, tempered)
    together = np.mean(drawn[:, 0] == np.argsort(order[1])[drawn[:, 1]])
    assert together < 0.9, "rows draw with their own keys"


@pytest.mark.parametrize(
    "values, what", [((-0.1,), "temperature"), ((1.0, 0.0), "top_p"), ((1.0, 1.1), "top_p"), ((1.0, 1.0, -1), "top_k")]
)
def test_sampling_out_of_range_is_named(values, what):
    with pytest.raises(UserError, match=what):
        Sampling(*values)
