"""A question as a user puts it: a prompt, its files and segments, and the turns before it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn

Segment = Sequence[int | float] | None  # start and end in seconds; None is the whole file


@dataclass(frozen=True)
class Question:
    """The user's turn, after `history`, with a file for each `<audio>` in all of it, in order."""

    prompt: str
    audio_files: tuple[Path, ...] = ()
    segments: tuple[Segment, ...] = ()
    history: tuple[Turn, ...] = ()


def make_question(
    prompt: str,
    audio_files: str | Path | Sequence[str | Path] | None = None,
    segs: Segment | Sequence[Segment] = None,
    history: Sequence[tuple[str, str]] = (),
) -> Question:
    """A question from the forms that `chat` takes. Raises UserError for an empty prompt or an odd segment."""
    if not prompt.strip():
        raise UserError("the question is empty; ask something, for instance 'What key is it in?'")
    if audio_files is None:
        files: tuple[Path, ...] = ()
    elif isinstance(audio_files, str | Path):
        files = (Path(audio_files),)
    else:
        files = tuple(Path(file) for file in audio_files)
    turns = tuple(Turn(*turn) for turn in history)
    if len(files) == 1 and not any(AUDIO_PLACEHOLDER in text for text in (prompt, *(turn.question for turn in turns))):
        prompt = f"{AUDIO_PLACEHOLDER}\n{prompt}"
    return Question(prompt, files, _segments(segs, len(files)), turns)


def _segments(segs: Any, files: int) -> tuple[Segment, ...]:
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
