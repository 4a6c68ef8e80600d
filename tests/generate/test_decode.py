"""Cached decoding against the whole forward pass, batches against single prompts, sampling against its distribution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mufun_jax.batch import Batch
from mufun_jax.errors import UserError
from mufun_jax.generate.decode import (
    Decoding,
    Prompts,
    Texts,
    advance,
    begin,
    next_token_logits,
    option_log_probabilities,
    run_prefix,
    stack,
)
from mufun_jax.generate.sample import Sampling, sample
from mufun_jax.model.kv_cache import KVCache, Prefix
from mufun_jax.model.mufun import MuFunModel
from tests.tiny import random_params, random_windows, relative_error, tiny_decoder, tiny_encoder, tiny_model

# Untied: a tied head with random weights says the last token again and again.
CONFIG = tiny_model(tiny_encoder(layers=2, taps=(0, 2)), tiny_decoder(layers=2, tied_embeddings=False))
MODEL = MuFunModel(CONFIG)
PARAMS = random_params(CONFIG)
NEVER = -7  # no token is this end of turn
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
    rows = jnp.arange(len(logits))
    each = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, rows)
    return jax.vmap(lambda keys: sample(logits, sampling.kind, jnp.asarray(sampling.numbers), keys))(each)


def split(prompts: Prompts, row: int) -> int:
    """Where a prompt's prefix ends: after its last window."""
    return 1 + int(np.flatnonzero(np.asarray(prompts.audio_slot[row]) >= 0).max(initial=-1))


def prefix_of(prompts: Prompts, row: int, slots: int = 64, quantize: bool = False) -> Prefix:
    """The prompt's prefix, in so many slots, with noise where it is padded."""
    alone, end = row_of(prompts, row), split(prompts, row)
    slot = np.where(np.arange(slots) < end, np.resize(alone.audio_slot, (1, slots)), -1)
    tokens = np.resize(alone.tokens, (1, slots))
    cut = Prompts(tokens, slot.astype(np.int32), np.array([end], np.int32), alone.samples)
    return run_prefix(MODEL, PARAMS, cut, slots, quantize)


def start(prompts: Prompts, prefix: Prefix | None, seeds=None, new=NEW, filling=None) -> Decoding:
    rows = len(prompts.lengths)
    cuts = [split(prompts, row) if prefix is not None else 0 for row in range(rows)]
    texts = np.full((rows, prompts.tokens.shape[1]), 60, np.int32)
    for row, cut in enumerate(cuts):
        texts[row, : prompts.lengths[row] - cut] = prompts.tokens[row, cut : prompts.lengths[row]]
    lengths = (prompts.lengths - np.array(cuts)).astype(np.int32)
    seeds = np.zeros(rows, np.uint32) if seeds is None else np.array(seeds, np.uint32)
    filling = np.zeros(rows, bool) if filling is None else np.array(filling)
    return begin(MODEL, PARAMS, prefix, Texts(texts, lengths), seeds, filling, new)


def go_on(decoding: Decoding, prefix, until=NEW, sampling=GREEDY, end=NEVER, allowed=None) -> Decoding:
    kind, numbers = sampling.kind, sampling.numbers
    return advance(MODEL, PARAMS, prefix, decoding, kind, numbers, np.int32(end), np.int32(until), allowed)


def run(prompts: Prompts, *, sampling=GREEDY, seed=0, end=NEVER, new=NEW) -> np.ndarray:
    """Tokens of each prompt, with a prefix of its own."""
    prefix = stack(tuple(prefix_of(prompts, row) for row in range(len(prompts.lengths))), 64)
    decoding = start(prompts, prefix, [seed + 10 * row for row in range(len(prompts.lengths))], new)
    return np.asarray(go_on(decoding, prefix, new, sampling, end).tokens)


@pytest.fixture(scope="module")
def greedy() -> np.ndarray:
    return run(make_prompts(PROMPTS))


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
        np.testing.assert_array_equal(run(row_of(prompts, row))[0], greedy[row])


def test_a_text_prompt_without_a_prefix_gets_the_same(greedy):
    text_only = make_prompts([PROMPTS[1]], length=5, windows=0)
    np.testing.assert_array_equal(go_on(start(text_only, None), None).tokens[0], greedy[1])


def test_rows_of_one_song_share_its_prefix(greedy):
    """Three questions about the song of row 0 and three about that of row 4, beside each of them alone."""
    prompts = make_prompts([(2, 3, 9), (2, 3, 9), (2, 3, 9), (3, 7, 4), (3, 7, 4), (3, 7, 4)])
    rng = np.random.default_rng(7)
    for row in (1, 2, 4, 5):
        cut = split(prompts, row)
        prompts.lengths[row] = cut + 2 + row
        prompts.tokens[row, cut : cut + 2 + row] = rng.integers(0, CONFIG.decoder.vocab_size, 2 + row)
    shared = stack((prefix_of(prompts, 0, 48), prefix_of(prompts, 3)), 64)
    together = np.asarray(go_on(start(prompts, shared), shared).tokens)
    np.testing.assert_array_equal(together[[0, 3]], greedy[[0, 4]])
    for row in range(6):
        np.testing.assert_array_equal(run(row_of(prompts, row))[0], together[row])
    assert len({tuple(row) for row in together.tolist()}) >= 5


def test_chunks_are_one_answer_and_a_row_that_fills_says_nothing(greedy):
    prompts = make_prompts(PROMPTS)
    prefix = stack(tuple(prefix_of(prompts, row) for row in range(len(PROMPTS))), 64)
    decoding = start(prompts, prefix, filling=[False, True, False, False, False])
    for until in (1, 2, 5, NEW):
        decoding = go_on(decoding, prefix, until, end=59)
        assert int(decoding.step) == until
    expected = np.where((greedy == 59).cumsum(1) > 0, 59, greedy)
    expected[1] = 59
    np.testing.assert_array_equal(decoding.tokens, expected)


def test_log_probabilities_are_those_of_the_whole_forward_pass(greedy):
    prompts = make_prompts(PROMPTS)
    prefix = stack(tuple(prefix_of(prompts, row) for row in range(len(PROMPTS))), 64)
    decoding = go_on(start(prompts, prefix), prefix)
    tokens = np.pad(prompts.tokens, ((0, 0), (0, NEW)))
    for row, length in enumerate(prompts.lengths):
        tokens[row, length : length + NEW] = greedy[row]
    expected = np.asarray(jax.nn.log_softmax(all_logits(PARAMS, prompts, tokens)))
    of_each = [
        [expected[row, length + step - 1, greedy[row, step]] for step in range(NEW)]
        for row, length in enumerate(prompts.lengths)
    ]
    np.testing.assert_allclose(decoding.log_probabilities, of_each, rtol=1e-5, atol=1e-5)

    texts = np.zeros((len(PROMPTS), 64), np.int32)
    cuts = [split(prompts, row) for row in range(len(PROMPTS))]
    for row, cut in enumerate(cuts):
        texts[row, : prompts.lengths[row] - cut] = tokens[row, cut : prompts.lengths[row]]
    lengths = (prompts.lengths - np.array(cuts)).astype(np.int32)
    counts = np.array([[NEW, 3, NEW, 1, 5], [2, 0, 1, NEW, 1], [0, 1, 1, 1, 1]], np.int32)
    options = np.zeros((3, len(PROMPTS), 16), np.int32)
    options[:, :, :NEW] = greedy
    options[2, :, 0] = np.arange(len(PROMPTS))
    found = option_log_probabilities(MODEL, PARAMS, prefix, Texts(texts, lengths), options, counts)
    for option, row in np.ndindex(*counts.shape):
        count = counts[option, row]
        wanted = of_each[row][:count] if option < 2 else [expected[row, prompts.lengths[row] - 1, row]][:count]
        np.testing.assert_allclose(found[option, row, :count], wanted, rtol=1e-5, atol=1e-5)
        assert not np.asarray(found[option, row, count:]).any()


def test_int8_prefixes_take_half_the_memory_and_change_little():
    prompts = row_of(make_prompts(PROMPTS), 4)
    plain, quantized = (prefix_of(prompts, 0, quantize=choice) for choice in (False, True))
    assert isinstance(plain.cache, KVCache) and isinstance(quantized.cache, KVCache)
    assert quantized.cache.keys.dtype == jnp.int8 and quantized.cache.key_scales is not None
    restored = quantized.cache.keys * quantized.cache.key_scales[..., None]
    worst = np.abs(restored - plain.cache.keys).max(-1)
    np.testing.assert_array_less(worst, np.asarray(quantized.cache.key_scales) * 0.5001 + 1e-12)
    expected, found = (start(prompts, prefix).logits for prefix in (plain, quantized))
    assert 0 < relative_error(found, expected) < 0.02


def test_only_allowed_tokens_are_drawn():
    prompts = make_prompts(PROMPTS)
    prefix = stack(tuple(prefix_of(prompts, row) for row in range(len(PROMPTS))), 64)
    allowed = np.zeros((len(PROMPTS), 2), np.uint32)
    allowed[:, 0] = [1 << 3, 1 << 31, (1 << 7) + (1 << 9), 0, (1 << 32) - 1]
    allowed[3, 1] = 1 << 4
    decoding = go_on(start(prompts, prefix), prefix, until=1, allowed=allowed.view(np.int32))
    drawn = np.asarray(decoding.tokens)[:, 0].tolist()
    assert drawn[:2] == [3, 31] and drawn[2] in (7, 9) and drawn[3] == 36 and drawn[4] < 32


def test_what_was_said_is_less_likely_to_be_said_again():
    """A penalty that knows no mercy: no token comes twice."""
    prompts = make_prompts(PROMPTS)
    prefix = stack(tuple(prefix_of(prompts, row) for row in range(len(PROMPTS))), 64)
    plain, penalized = (
        np.asarray(go_on(start(prompts, prefix, new=16), prefix, 16, Sampling(repetition_penalty=penalty)).tokens)
        for penalty in (1.0, 10.0)
    )
    counts = [max(np.bincount(row)) for row in plain]
    assert max(counts) > 1, "without it one does"
    assert all(max(np.bincount(row)) <= max(np.bincount(before)) for row, before in zip(penalized, plain, strict=True))
    assert sum(len(set(row)) for row in penalized.tolist()) > sum(len(set(row)) for row in plain.tolist())


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
    tokens = run(prompts, end=end)
    for number, expected in enumerate(greedy.tolist()):
        length = expected.index(end) if end in expected else NEW
        assert tokens[number].tolist() == expected[:length] + [end] * (NEW - length)


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
    first, again, other = (run(prompts, sampling=Sampling(1e6), seed=seed) for seed in (5, 5, 6))
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
