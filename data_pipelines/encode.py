"""One example as arrays: its audio in windows, its text in tokens, spliced. And how large it will be, beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int16, Int32

from data_pipelines.manifest import Example
from data_pipelines.record import Record, audio_length, decode_audio
from mufun_jax.audio.windows import count_windows
from mufun_jax.config import SAMPLE_RATE, EncoderConfig
from mufun_jax.errors import ManifestError
from mufun_jax.text.conversation import render
from mufun_jax.text.splice import splice, windows_that_fit
from mufun_jax.text.tokenizer import TextPiece, Tokenizer


@dataclass(frozen=True)
class Budget:
    """What one row holds: L positions, W windows of audio, T target tokens."""

    positions: int
    windows: int
    targets: int


@dataclass(frozen=True)
class Size:
    """What one example takes of a row, and what of its audio is left out at the end because no row holds more."""

    positions: int
    windows: int
    targets: int
    dropped_windows: int
    seconds: float  # of audio that are heard


@dataclass(frozen=True)
class EncodedExample:
    """One example, not yet packed. `target_index[i]` predicts `targets[i]`; slots count from 0."""

    tokens: Int32[np.ndarray, " L"]
    audio_slot: Int32[np.ndarray, " L"]
    samples: Int16[np.ndarray, "W S"]
    target_index: Int32[np.ndarray, " T"]
    targets: Int32[np.ndarray, " T"]
    dropped_windows: int


@dataclass(frozen=True)
class _Layout:
    """Where everything of an example goes: its text, and of each file the samples that are heard."""

    pieces: list[TextPiece]
    windows: list[int]  # kept of each file
    spans: list[tuple[int, int]]  # samples of each file, start and stop, before windows are dropped
    dropped_windows: int


@dataclass(frozen=True)
class ExampleEncoder:
    """Measures and encodes examples of a stage. Deterministic, and safe in threads and worker processes.

    Audio beyond a row is left out by whole windows, and counted; text is never cut.
    """

    tokenizer: Tokenizer
    encoder: EncoderConfig
    budget: Budget
    template: Literal["train", "warmup"]
    longest_audio: float  # seconds of each file that are used

    def measure(self, example: Example, samples: Sequence[int]) -> Size:
        """What an example takes, from the lengths of its files in samples.

        Raises:
            ManifestError: text and one window a file, or the answers, are more than a row holds.
        """
        layout = self._layout(example, samples)
        text = sum(len(piece.ids) for piece in layout.pieces)
        heard = (
            min(stop - start, windows * self.encoder.window_samples)
            for (start, stop), windows in zip(layout.spans, layout.windows, strict=True)
        )
        return Size(
            positions=text + sum(layout.windows) * self.encoder.tokens_per_window,
            windows=sum(layout.windows),
            targets=_count_targets(layout.pieces),
            dropped_windows=layout.dropped_windows,
            seconds=sum(heard) / SAMPLE_RATE,
        )

    def encode(self, example: Example, record: Record) -> EncodedExample:
        """The example's arrays, its audio out of the record that holds it."""
        layout = self._layout(example, [audio_length(data, record.encoding) for data in record.audio])
        window_samples = self.encoder.window_samples
        windows = np.zeros((sum(layout.windows), window_samples), np.int16)
        first = 0
        for data, (start, stop), count in zip(record.audio, layout.spans, layout.windows, strict=True):
            heard = decode_audio(data, record.encoding, start, min(stop, start + count * window_samples))
            windows[first : first + count].reshape(-1)[: len(heard)] = heard
            first += count
        spliced = splice(layout.pieces, layout.windows, self.encoder.tokens_per_window)
        target_index = np.flatnonzero(spliced.is_target[1:]).astype(np.int32)
        return EncodedExample(
            tokens=spliced.tokens,
            audio_slot=spliced.audio_slot,
            samples=windows,
            target_index=target_index,
            targets=spliced.tokens[target_index + 1],
            dropped_windows=layout.dropped_windows,
        )

    def _layout(self, example: Example, samples: Sequence[int]) -> _Layout:
        pieces = self.tokenizer.encode_pieces(render(example.turns, self.template))
        if not len(pieces) - 1 == len(example.audio) == len(samples):
            raise ManifestError(
                f"{example.id}: {len(pieces) - 1} <audio> in its text, {len(example.audio)} files named, "
                f"{len(samples)} there"
            )
        spans = [self._span(segment, length) for segment, length in zip(example.segments, samples, strict=True)]
        windows = [count_windows(stop - start, self.encoder.window_samples) for start, stop in spans]
        kept = self._kept_windows(windows, sum(len(piece.ids) for piece in pieces), example.id)
        if (targets := _count_targets(pieces)) > self.budget.targets:
            raise ManifestError(f"{example.id}: {targets} target tokens, a row has {self.budget.targets}")
        return _Layout(pieces, kept, spans, sum(windows) - sum(kept))

    def _span(self, segment: tuple[float, float] | None, length: int) -> tuple[int, int]:
        """Samples that an example uses of a file of `length` samples."""
        start, stop = (0, length) if segment is None else (round(second * SAMPLE_RATE) for second in segment)
        return start, min(stop, length, start + round(self.longest_audio * SAMPLE_RATE))

    def _kept_windows(self, windows: list[int], text_positions: int, name: str) -> list[int]:
        tokens = self.encoder.tokens_per_window
        by_windows = self.budget.windows * tokens + text_positions
        try:
            return windows_that_fit(windows, text_positions, tokens, min(self.budget.positions, by_windows))
        except ValueError as error:
            raise ManifestError(f"{name}: {error}") from None


def _count_targets(pieces: list[TextPiece]) -> int:
    """Targets of a conversation. Something stands before each, the system's words or audio."""
    return sum(sum(piece.is_target) for piece in pieces)
