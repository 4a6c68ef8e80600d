"""A question as a user puts it: a prompt, its files and segments, and the turns before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mufun_jax.audio.wav import wav_bytes
from mufun_jax.errors import UserError
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn

Audio = str | Path | bytes | tuple[np.ndarray, int | float]  # a path, the bytes of a file, or samples and rate in Hz
Segment = Sequence[int | float] | None  # start and end in seconds; None is the whole file
# Of a song beyond what the model hears: only its first part; part after part, an answer each; or all of it at once.
Long = Literal["first", "window", "all"]


@dataclass(frozen=True)
class Question:
    """The user's turn, after `history`, with a file for each `<audio>` in all of it, in order."""

    prompt: str
    audio_files: tuple[Path | bytes, ...] = ()
    segments: tuple[Segment, ...] = ()
    history: tuple[Turn, ...] = ()
    long: Long = "first"


def make_question(
    prompt: str,
    audio_files: Audio | Sequence[Audio] | None = None,
    segs: Segment | Sequence[Segment] = None,
    history: Sequence[tuple[str, str]] = (),
    long: Long = "first",
) -> Question:
    """A question from the forms that `chat` takes. Raises UserError for an empty prompt, odd audio or segments."""
    if not prompt.strip():
        raise UserError("the question is empty; ask something, for instance 'What key is it in?'")
    if long not in get_args(Long):
        raise UserError(f"long {long!r}: is none of {', '.join(get_args(Long))}")
    files = read_audio(audio_files)
    turns = tuple(Turn(*turn) for turn in history)
    if len(files) == 1 and not any(AUDIO_PLACEHOLDER in text for text in (prompt, *(turn.question for turn in turns))):
        prompt = f"{AUDIO_PLACEHOLDER}\n{prompt}"
    return Question(prompt, files, read_segments(segs, len(files)), turns, long)


def read_audio(audio: Any) -> tuple[Path | bytes, ...]:
    """Files, from one or a list of what a user may have: paths, bytes, or (samples, rate) as librosa gives them."""
    if audio is None:
        return ()
    return tuple(_file(item, number) for number, item in enumerate([audio] if is_one(audio) else audio, 1))


def is_one(audio: Any) -> bool:
    """Whether it is a song, and not a list of them."""
    samples = isinstance(audio, tuple) and any(isinstance(part, np.ndarray) for part in audio)
    return samples or isinstance(audio, bytes) or not isinstance(audio, Sequence) or isinstance(audio, str)


def song_name(number: int) -> str:
    """What a song that came without a file's name is called, counted from 1."""
    return f"song {number}"


def _file(audio: Any, number: int) -> Path | bytes:
    match audio:
        case bytes():
            return audio
        case str() | Path():
            return Path(audio)
        case (np.ndarray() as samples, rate):
            return wav_bytes(samples, rate, song_name(number))
    raise UserError(
        f"{song_name(number)} is a {type(audio).__name__}; give a path, the bytes of a file, or (samples, rate in Hz)"
    )


def read_segments(segs: Any, files: int) -> tuple[Segment, ...]:
    """One segment (or None) a file, from [start, end], a list of those, or None."""
    if segs is None:
        return (None,) * files
    values = list(segs)
    if len(values) == 2 and all(isinstance(value, int | float) for value in values):
        values = [values]
    if len(values) != files or not all(value is None or _is_pair(value) for value in values):
        raise UserError(
            f"segs {segs!r}: give [start, end] in seconds, or one such pair (or None) for each of {files} files"
        )
    return tuple(values)


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(isinstance(one, int | float) for one in value)
