"""The splice, on the host: pieces of text and windows of audio in one sequence of positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

from mufun_jax.text.tokenizer import TextPiece


@dataclass(frozen=True)
class Spliced:
    """One sequence. `audio_slot` counts this example's audio tokens from 0; -1 is text."""

    tokens: Int32[np.ndarray, " L"]
    audio_slot: Int32[np.ndarray, " L"]
    is_target: Bool[np.ndarray, " L"]


def splice(pieces: Sequence[TextPiece], windows: Sequence[int], tokens_per_window: int) -> Spliced:
    """Puts the tokens of all windows of file i between text pieces i and i + 1, with nothing around them.

    `windows` holds the number of windows of each file: one fewer than there are pieces.
    """
    if len(windows) != len(pieces) - 1:
        raise ValueError(f"{len(pieces) - 1} <audio> placeholders but {len(windows)} files")
    tokens: list[int] = []
    audio_slot: list[int] = []
    is_target: list[bool] = []
    slots = 0
    for piece, count in zip(pieces, [*windows, 0], strict=True):
        tokens += piece.ids
        audio_slot += [-1] * len(piece.ids)
        is_target += piece.is_target
        audio = count * tokens_per_window
        tokens += [0] * audio
        audio_slot += range(slots, slots + audio)
        is_target += [False] * audio
        slots += audio
    return Spliced(np.array(tokens, np.int32), np.array(audio_slot, np.int32), np.array(is_target, bool))


def windows_that_fit(windows: Sequence[int], text_positions: int, tokens_per_window: int, positions: int) -> list[int]:
    """Fewer windows, taken whole from the end, so that text and audio fit into `positions`. Text is never cut.

    Raises ValueError, with both numbers, if the text and one window a file do not fit.
    """
    kept = list(windows)
    room = (positions - text_positions) // tokens_per_window
    if room < len(kept):
        raise ValueError(
            f"{text_positions} tokens of text and {len(kept)} windows of {tokens_per_window} tokens "
            f"do not fit into {positions} positions"
        )
    for i in reversed(range(len(kept))):
        excess = sum(kept) - room
        kept[i] -= max(0, min(excess, kept[i] - 1))
    return kept
