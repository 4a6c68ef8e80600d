"""Songs as vectors, for retrieval and probing: what the encoder or the connector makes of them."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal, cast, get_args

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Num

from mufun_jax.errors import UserError
from mufun_jax.generate.prompt import MAX_SECONDS, Listener
from mufun_jax.generate.question import Audio, Segment, is_one, read_audio, read_segments, song_name
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.weights.params import Params

Features = Literal["connector", "encoder"]  # as wide as the decoder; or the tapped layers side by side
_WINDOWS_AT_ONCE = 8


def embed(
    model: MuFunModel,
    params: Params,
    mesh: Mesh,
    listener: Listener,
    audio: Audio | Sequence[Audio],
    segs: Segment | Sequence[Segment],
    features: Features,
    pool: bool,
) -> Float[np.ndarray, "... D"] | list[Float[np.ndarray, "tokens D"]]:
    """`MuFun.embed`. Raises AudioError where a song cannot be heard, UserError where there is none."""
    if features not in get_args(Features):
        raise UserError(f"features {features!r}: is none of {', '.join(get_args(Features))}")
    files = read_audio(audio)
    if not files:
        raise UserError("no song to embed: give one, or a list of them")
    encoder = model.config.encoder
    room = math.ceil(MAX_SECONDS / encoder.window_seconds)
    per_second = encoder.tokens_per_window / encoder.window_seconds
    found = []
    for number, (file, segment) in enumerate(zip(files, read_segments(segs, len(files)), strict=True), 1):
        song = listener.song(file, segment, room, song_name(number))
        tokens = np.concatenate(list(_windows(model, params, mesh, song.windows, features)))
        tokens = tokens[: max(1, math.ceil(song.heard.seconds_used * per_second))]  # not the silence after its end
        found.append(tokens.mean(axis=0) if pool else tokens)
    if is_one(audio):
        return found[0]
    return np.stack(found) if pool else found


def _windows(
    model: MuFunModel, params: Params, mesh: Mesh, windows: Float[np.ndarray, "W S"], features: Features
) -> Iterator[Float[np.ndarray, "tokens D"]]:
    """A few windows at a time, filled up with silent ones: any length of song is one program."""
    for start in range(0, len(windows), _WINDOWS_AT_ONCE):
        some = np.zeros((1, _WINDOWS_AT_ONCE, windows.shape[1]), np.float32)
        count = len(windows[start : start + _WINDOWS_AT_ONCE])
        some[0, :count] = windows[start : start + count]
        with jax.set_mesh(mesh):
            found = np.asarray(_features(model, params, some, features == "connector"), np.float32)[0]
        yield found[: count * model.config.encoder.tokens_per_window]


@partial(jax.jit, static_argnames=("model", "connected"))
def _features(
    model: MuFunModel, params: Params, samples: Num[np.ndarray | Array, "R W S"], connected: bool
) -> Float[Array, "R slots D"]:
    return cast(Any, model.apply({"params": params}, samples, connected, method=MuFunModel.encode_audio))
