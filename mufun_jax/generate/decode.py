"""Prefill and cached decoding of a batch of prompts, under jit."""

from functools import partial
from typing import cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from mufun_jax.generate.sample import Sampling, sample
from mufun_jax.model.kv_cache import KVCache
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


@partial(jax.jit, static_argnames=("model", "max_new_tokens", "sampling"))
def generate(
    model: MuFunModel,
    params: Params,
    prompts: Prompts,
    end_of_turn: Int[Array, ""],
    key: jax.Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
) -> tuple[Int[Array, "R new"], Int[Array, " R"]]:
    """Answers of a batch: [R, max_new_tokens] tokens and the number of them before the end of the turn.

    Rows stop at `end_of_turn`; the loop ends when all have. Greedy, a row's tokens are those it gets alone.
    """
    rows, length = prompts.tokens.shape
    logits, cache = prefill(model, params, prompts, slots=length + max_new_tokens)
    answer = jnp.full((rows, max_new_tokens), end_of_turn, jnp.int32)

    def unfinished(carry) -> Bool[Array, ""]:
        step, _, _, _, done = carry
        return (step < max_new_tokens) & ~done.all()

    def one_token(carry):
        step, logits, cache, answer, done = carry
        token = sample(logits, sampling, jax.random.fold_in(key, step))
        token = jnp.where(done, end_of_turn, token)
        answer = answer.at[:, step].set(token)
        logits, cache = model.apply(
            {"params": params}, token[:, None], prompts.lengths + step, cache, method=MuFunModel.append
        )
        return step + 1, logits[:, 0], cache, answer, done | (token == end_of_turn)

    start = (jnp.zeros((), jnp.int32), logits, cache, answer, jnp.zeros(rows, bool))
    *_, answer, _ = jax.lax.while_loop(unfinished, one_token, start)
    ended = answer == end_of_turn
    return answer, jnp.where(ended.any(1), ended.argmax(1), max_new_tokens)


@partial(jax.jit, static_argnames=("model",))
def next_token_logits(model: MuFunModel, params: Params, prompts: Prompts) -> Num[Array, "R V"]:
    """Logits after each prompt, float32."""
    logits, _ = prefill(model, params, prompts, slots=prompts.tokens.shape[1])
    return logits


@partial(jax.jit, static_argnames=("model", "slots"))
def prefill_prompts(model: MuFunModel, params: Params, prompts: Prompts, slots: int) -> tuple[Array, KVCache]:
    """`prefill`, compiled by itself: several continuations of one prompt share what it gives."""
    return prefill(model, params, prompts, slots)


@partial(jax.jit, static_argnames=("model",))
def continuation_log_probability(
    model: MuFunModel,
    params: Params,
    logits: Num[Array, "R V"],
    cache: KVCache,
    lengths: Int[HostOrDevice, " R"],
    tokens: Int[HostOrDevice, "R L"],
    counts: Int[HostOrDevice, " R"],
) -> Num[Array, " R"]:
    """Summed log-probability, float32, of the first `counts` tokens after prompts that filled `cache`.

    `logits` are those after each prompt, `lengths` the prompts' lengths.
    """
    after, _ = model.apply({"params": params}, tokens, lengths, cache, method=MuFunModel.append)
    before = jnp.concatenate([logits[:, None], cast(jax.Array, after)[:, :-1]], axis=1)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(before, axis=-1), tokens[:, :, None], axis=2)[:, :, 0]
    return jnp.where(jnp.arange(tokens.shape[1]) < counts[:, None], chosen, 0.0).sum(-1)


def prefill(model: MuFunModel, params: Params, prompts: Prompts, slots: int) -> tuple[Num[Array, "R V"], KVCache]:
    """Runs the prompts into a fresh cache of so many slots; logits after each prompt."""
    cache = KVCache.empty(model.config.decoder, prompts.tokens.shape[0], slots, model.compute.dtype)
    filled = model.apply(
        {"params": params},
        prompts.tokens,
        prompts.audio_slot,
        prompts.samples,
        prompts.lengths - 1,
        cache,
        method=MuFunModel.prefill,
    )
    return cast(tuple[jax.Array, KVCache], filled)
