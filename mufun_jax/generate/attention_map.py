"""Where in a song the decoder looks when it begins to answer."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mufun_jax.errors import UserError
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.decode import Texts
from mufun_jax.generate.question import Question
from mufun_jax.model.head_groups import MASKED
from mufun_jax.model.kv_cache import KVCache, LayerCaches, Prefix, empty_caches
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.weights.params import Params


def attention_over_song(model: MuFun, question: Question) -> Float[np.ndarray, "layers N A"]:
    """The weights with which the prompt's last position, which gives the answer's first token, looks at audio tokens.

    For each layer and query head, float32; there are 10 audio tokens a second, those of several songs one after the
    other. A head's weights sum to less than 1: the rest is on text.

    Raises:
        UserError: the question has no song. AudioError: a file cannot be read.
    """
    prompt = model.listener.prompt(question)
    prefix = model.engine.prefix(prompt)
    if prefix is None:
        raise UserError("the question has no song to look at: give an audio file with it")
    text = model.engine.texts_of([prompt.text])
    with jax.set_mesh(model.mesh):
        weights = np.asarray(_prefix_weights(model.engine.model, model.engine.params, prefix, text))
    return weights[:, :, np.flatnonzero(prompt.spliced.audio_slot >= 0)]


@partial(jax.jit, static_argnames="model")
def _prefix_weights(model: MuFunModel, params: Params, prefix: Prefix, text: Texts) -> Float[Array, "layers N P"]:
    """The weights of the text's last position on the prefix, the text's own keys counted too."""
    cache = empty_caches(model.config.decoder, 1, text.tokens.shape[1], model.compute)
    appended: Any = model.apply(
        {"params": params},
        text.tokens,
        prefix.lengths,
        cache,
        prefix,
        text.lengths[:, None] - 1,
        method=MuFunModel.append,
        mutable=["intermediates"],
    )
    (_, cache), seen = appended
    sown = seen["intermediates"]["decoder"]["layers"]
    if not model.compute.scan_layers:
        sown = stacked([sown[str(number)] for number in range(model.config.decoder.layers)])
    (queries,) = sown["queries"]
    last = queries[:, 0, text.lengths[0] - 1]
    on_prefix = _logits(last, prefix.cache, prefix.lengths[0])
    on_text = _logits(last, cache, text.lengths[0])
    weights = jax.nn.softmax(jnp.concatenate([on_prefix, on_text], axis=-1))
    return weights[..., : prefix.slots]


def _logits(queries: Float[Array, "layers N H"], caches: LayerCaches, length: Array) -> Float[Array, "layers N C"]:
    """Of one query a head with the first `length` keys of the caches of one row."""
    cache = caches if isinstance(caches, KVCache) else stacked(caches)
    layers, heads, size = queries.shape
    kv_heads = cache.keys.shape[2]
    groups = queries.reshape(layers, kv_heads, heads // kv_heads, size)
    keys = cache.keys[:, 0].astype(queries.dtype)
    logits = jnp.einsum("lkgh,lkch->lkgc", groups, keys, preferred_element_type=jnp.float32) * size**-0.5
    if cache.key_scales is not None:
        logits = logits * cache.key_scales[:, 0, :, None]
    return jnp.where(jnp.arange(cache.keys.shape[3]) < length, logits.reshape(layers, heads, -1), MASKED)


def stacked(of_layers: Any) -> Any:
    """Trees of one form as one, each array with a leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_layers)
