"""Prefill, and decoding from a prefix that rows share: the programs that run on the devices.

A batch is G prefixes of Q rows each, one after the other. The loop's numbers are arguments, so that a program serves
every temperature, seed and number of tokens.
"""

from functools import partial
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt32

from mufun_jax.generate.sample import Kind, penalize, sample
from mufun_jax.model.kv_cache import KVCache, LayerCaches, Prefix, empty_caches, quantized
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.weights.params import Params

HostOrDevice = np.ndarray | Array


@flax.struct.dataclass
class Prompts:
    """A batch of spliced prompts, padded at the end to one length."""

    tokens: Int[HostOrDevice, "R L"]
    audio_slot: Int[HostOrDevice, "R L"]
    lengths: Int[HostOrDevice, " R"]
    samples: Num[HostOrDevice, "R W S"]


@flax.struct.dataclass
class Texts:
    """What follows the prefix in each row: text alone, padded at the end to one length."""

    tokens: Int[HostOrDevice, "R L"]
    lengths: Int[HostOrDevice, " R"]  # at least 1


@flax.struct.dataclass
class Decoding:
    """Answers as far as they have come. The next token of every row is drawn from `logits`."""

    logits: Float[Array, "R V"]
    cache: LayerCaches
    first: Int[Array, " R"]  # the position of the answer's first token
    keys: Key[Array, " R"]
    step: Int[Array, ""]  # tokens drawn
    tokens: Int[Array, "R T"]
    log_probabilities: Float[Array, "R T"]  # the model's own, in nats, before temperature and constraint
    done: Bool[Array, " R"]  # the end of the turn was drawn, or the row is only there to fill the batch


@partial(jax.jit, static_argnames=("model", "slots", "quantize"))
def run_prefix(model: MuFunModel, params: Params, prompts: Prompts, slots: int, quantize: bool) -> Prefix:
    """The prefix that some prompts are, with so many slots."""
    _, cache = prefill(model, params, prompts, slots)
    return Prefix(quantized(cache) if quantize else cache, jnp.asarray(prompts.lengths))


@partial(jax.jit, static_argnames="slots")
def stack(prefixes: tuple[Prefix, ...], slots: int) -> Prefix:
    """Several prefixes as one, with so many slots."""

    def wider(x: Any, axis: int) -> Any:
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, slots - x.shape[axis])
        return jnp.pad(x, widths)

    groups = 1 if isinstance(prefixes[0].cache, KVCache) else 0  # layers come before groups, heads and slots

    def joined(*parts: Any) -> Any:
        return jnp.concatenate([wider(part, groups + 2) for part in parts], axis=groups)

    caches = jax.tree.map(joined, *(prefix.cache for prefix in prefixes))
    return Prefix(caches, jnp.concatenate([prefix.lengths for prefix in prefixes]))


@partial(jax.jit, static_argnames=("model", "most"))
def begin(
    model: MuFunModel,
    params: Params,
    prefix: Prefix | None,
    texts: Texts,
    seeds: UInt32[HostOrDevice, " R"],
    filling: Bool[HostOrDevice, " R"],
    most: int,
) -> Decoding:
    """Runs each row's text after its prefix; up to `most` tokens can follow. Rows that are `filling` stay empty."""
    rows, length = texts.tokens.shape
    cache = empty_caches(model.config.decoder, rows, length + most, model.compute)
    first = _ends(prefix, rows)
    at = jnp.asarray(texts.lengths)[:, None] - 1
    logits, cache = _append(model, params, texts.tokens, first, cache, prefix, at)
    return Decoding(
        logits=logits[:, 0],
        cache=cache,
        first=first + texts.lengths,
        keys=jax.vmap(jax.random.key)(seeds),
        step=jnp.zeros((), jnp.int32),
        tokens=jnp.zeros((rows, most), jnp.int32),
        log_probabilities=jnp.zeros((rows, most), jnp.float32),
        done=jnp.asarray(filling),
    )


@partial(jax.jit, static_argnames=("model", "kind"), donate_argnames="decoding")
def advance(
    model: MuFunModel,
    params: Params,
    prefix: Prefix | None,
    decoding: Decoding,
    kind: Kind,
    numbers: Float[HostOrDevice, " 4"],
    end_of_turn: Int[HostOrDevice, ""],
    until: Int[HostOrDevice, ""],
    allowed: Int[HostOrDevice, "R words"] | None = None,
) -> Decoding:
    """Draws tokens until so many are there, or all rows are done. A row that is done repeats `end_of_turn`.

    `allowed` has a bit for each token of the vocabulary, the first in the lowest bit of the first word: only those may
    be drawn, which is said anew for each token.
    """

    def unfinished(now: Decoding) -> Bool[Array, ""]:
        return (now.step < until) & ~now.done.all()

    def one_token(now: Decoding) -> Decoding:
        logits = now.logits
        if kind.penalized:
            logits = penalize(logits, _there(now, logits.shape[1]), jnp.asarray(numbers))
        if allowed is not None:
            logits = jnp.where(_bits(jnp.asarray(allowed), logits.shape[1]), logits, -jnp.inf)
        keys = jax.vmap(jax.random.fold_in, (0, None))(now.keys, now.step)
        token = jnp.where(now.done, end_of_turn, sample(logits, kind, jnp.asarray(numbers), keys))
        chosen = jnp.take_along_axis(jax.nn.log_softmax(now.logits), token[:, None], axis=1)[:, 0]
        after, cache = _append(model, params, token[:, None], now.first + now.step, now.cache, prefix)
        return now.replace(  # pyright: ignore[reportAttributeAccessIssue]  of flax.struct
            logits=after[:, 0],
            cache=cache,
            step=now.step + 1,
            tokens=now.tokens.at[:, now.step].set(token),
            log_probabilities=now.log_probabilities.at[:, now.step].set(chosen),
            done=now.done | (token == end_of_turn),
        )

    return jax.lax.while_loop(unfinished, one_token, decoding)


@partial(jax.jit, static_argnames=("model",))
def option_log_probabilities(
    model: MuFunModel,
    params: Params,
    prefix: Prefix | None,
    texts: Texts,
    options: Int[HostOrDevice, "O R T"],
    counts: Int[HostOrDevice, "O R"],
) -> Float[Array, "O R T"]:
    """Log-probabilities, in nats, of the first `counts` tokens of each option after each row's text; 0 beyond them.

    Each is that of the token after all before it, those of the prefix too. The text is run once for all options, which
    follow one after the other, so that only one of them is in memory.
    """
    rows, length = texts.tokens.shape
    most = options.shape[2]
    cache = empty_caches(model.config.decoder, rows, length + most, model.compute)
    first = _ends(prefix, rows)
    at = jnp.asarray(texts.lengths)[:, None] - 1
    after_text, cache = _append(model, params, texts.tokens, first, cache, prefix, at)

    def of_option(option: tuple[Array, Array]) -> Array:
        tokens, count = option
        after, _ = _append(model, params, tokens, first + texts.lengths, cache, prefix)
        before_each = jnp.concatenate([after_text, after[:, :-1]], axis=1)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(before_each), tokens[:, :, None], axis=2)[:, :, 0]
        return jnp.where(jnp.arange(most) < count[:, None], chosen, 0.0)

    return jax.lax.map(of_option, (jnp.asarray(options), jnp.asarray(counts)))


@partial(jax.jit, static_argnames=("model",))
def next_token_logits(model: MuFunModel, params: Params, prompts: Prompts) -> Num[Array, "R V"]:
    """Logits after each whole prompt, float32."""
    logits, _ = prefill(model, params, prompts, slots=prompts.tokens.shape[1])
    return logits


def prefill(model: MuFunModel, params: Params, prompts: Prompts, slots: int) -> tuple[Num[Array, "R V"], LayerCaches]:
    """Runs the prompts into a fresh cache of so many slots; logits after each prompt."""
    cache = empty_caches(model.config.decoder, prompts.tokens.shape[0], slots, model.compute)
    filled = model.apply(
        {"params": params},
        prompts.tokens,
        prompts.audio_slot,
        prompts.samples,
        prompts.lengths - 1,
        cache,
        method=MuFunModel.prefill,
    )
    return cast(tuple[jax.Array, LayerCaches], filled)


def _append(model: MuFunModel, params: Params, *arguments: Any) -> tuple[Array, LayerCaches]:
    return cast(Any, model.apply({"params": params}, *arguments, method=MuFunModel.append))


def _ends(prefix: Prefix | None, rows: int) -> Int[Array, " R"]:
    """The first position after each row's prefix."""
    if prefix is None:
        return jnp.zeros(rows, jnp.int32)
    return jnp.repeat(prefix.lengths, rows // len(prefix.lengths))


def _there(decoding: Decoding, vocabulary: int) -> Bool[Array, "R V"]:
    """Which tokens the answers have."""
    rows, most = decoding.tokens.shape
    drawn = jnp.broadcast_to(jnp.arange(most) < decoding.step, (rows, most))
    nowhere = jnp.zeros((rows, vocabulary), bool)
    return nowhere.at[jnp.arange(rows)[:, None], decoding.tokens].max(drawn)


def _bits(words: Int[Array, "R words"], count: int) -> Bool[Array, "R bits"]:
    """The lowest bit first, of 32 a word; what the words do not reach is 0."""
    bits = (words[:, :, None] >> jnp.arange(32)) & 1
    flat = bits.reshape(len(words), -1).astype(bool)[:, :count]
    return jnp.pad(flat, ((0, 0), (0, count - flat.shape[1])))
