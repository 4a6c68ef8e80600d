"""The hidden states of every encoder layer: what probes on frozen features are fitted to, and what one can look at."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from mufun_jax.generate.chat import MuFun
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.model.whisper_encoder import mean_pool
from mufun_jax.weights.params import Params

_WINDOWS_AT_ONCE = 4  # all layers of a 30 s window of large-v3 are 127 MB in bfloat16


def encoder_features(model: MuFun, windows: Num[np.ndarray, "W S"], pool: int = 1) -> Float[np.ndarray, "depths W F D"]:
    """Hidden states of windows at all depths 0 … layers, float32, each `pool` consecutive frames as their mean.

    Depths are numbered as the taps are: 0 is the convolutions plus positions, the last has passed the final layer
    norm, those between are the bare residual stream. There are 50 frames a second; `pool` must divide those of a
    window, `model.config.encoder.frames`: that number itself gives one vector a window.
    Windows are those of `model.listener.song(...)`, or any samples at 16 kHz of that length.
    """
    parts = []
    for start in range(0, len(windows), _WINDOWS_AT_ONCE):
        some = windows[start : start + _WINDOWS_AT_ONCE]
        padded = np.zeros((_WINDOWS_AT_ONCE, windows.shape[1]), windows.dtype)
        padded[: len(some)] = some
        with jax.set_mesh(model.mesh):
            found = _hidden_states(model.model, model.params, padded, pool)
        parts.append(np.asarray(found, np.float32)[:, : len(some)])
    return np.concatenate(parts, axis=1)


@partial(jax.jit, static_argnames=("model", "pool"))
def _hidden_states(
    model: MuFunModel, params: Params, windows: Num[Array, "W S"], pool: int
) -> Float[Array, "depths W F D"]:
    variables, method = {"params": params}, MuFunModel.encode_audio
    _, seen = model.apply(variables, windows[None], method=method, mutable=["intermediates"])
    encoder: Any = seen["intermediates"]["encoder"]
    (first,), (layers,), (last,) = encoder["first"], encoder["layers"]["hidden"], encoder["last"]
    depths = jnp.concatenate([first[None], layers[:-1], last[None]])[:, : len(windows)]
    return jax.vmap(partial(mean_pool, pool=pool))(depths)
