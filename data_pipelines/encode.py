"""One example of a manifest as arrays: its audio in windows, its text in tokens, spliced."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int16, Int32

from data_pipelines.manifest import Example
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.audio.windows import split_windows, to_int16
from mufun_jax.config import EncoderConfig
from mufun_jax.errors import ManifestError
from mufun_jax.text.conversation import render
from mufun_jax.text.splice import splice, windows_that_fit
from mufun_jax.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Budget:
    """What one row holds: L positions, W windows of audio, T target tokens."""

    positions: int
    windows: int
    targets: int


@dataclass(frozen=True)
class EncodedExample:
    """One example, not yet packed. `target_index[i]` predicts `targets[i]`; slots count from 0."""

    tokens: Int32[np.ndarray, " L"]
    audio_slot: Int32[np.ndarray, " L"]
    samples: Int16[np.ndarray, "W S"]
    target_index: Int32[np.ndarray, " T"]
    targets: Int32[np.ndarray, " T"]
    dropped_windows: int  # left out at the end of the audio, because the row holds no more

    def fits(self, budget: Budget) -> bool:
        return (
            len(self.tokens) <= budget.positions
            and len(self.samples) <= budget.windows
            and len(self.targets) <= budget.targets
        )


@dataclass(frozen=True)
class ExampleEncoder:
    """Encodes examples of a stage. Deterministic, and safe in threads and worker processes."""

    tokenizer: Tokenizer
    encoder: EncoderConfig
    budget: Budget
    template: Literal["train", "warmup"]
    longest_audio: float  # seconds of each file that are used

    def __call__(self, example: Example) -> EncodedExample:
        """Reads the example's audio and encodes it.

        Audio beyond the row is left out by whole windows and counted; text is never cut.

        Raises:
            AudioError: a file cannot be read.
            ManifestError: text and one window a file are more than a row holds.
        """
        rendered = render(example.turns, self.template)
        pieces = self.tokenizer.encode_pieces(rendered)
        if len(pieces) - 1 != len(example.audio):
            raise ManifestError(f"{example.id}: {len(pieces) - 1} <audio> but {len(example.audio)} audio files")
        files = [self._windows_of(path, segment) for path, segment in zip(example.audio, example.segments, strict=True)]
        kept = self._kept_windows([len(file) for file in files], sum(len(piece.ids) for piece in pieces), example.id)
        spliced = splice(pieces, kept, self.encoder.tokens_per_window)
        target_index = np.flatnonzero(spliced.is_target[1:]).astype(np.int32)
        encoded = EncodedExample(
            tokens=spliced.tokens,
            audio_slot=spliced.audio_slot,
            samples=np.concatenate(
                [np.zeros((0, self.encoder.window_samples), np.int16)]
                + [file[:count] for file, count in zip(files, kept, strict=True)]
            ),
            target_index=target_index,
            targets=spliced.tokens[target_index + 1],
            dropped_windows=sum(len(file) for file in files) - sum(kept),
        )
        if not encoded.fits(self.budget):
            raise ManifestError(f"{example.id}: {len(encoded.targets)} target tokens, a row has {self.budget.targets}")
        return encoded

    def _windows_of(self, path, segment) -> Int16[np.ndarray, "W S"]:
        waveform = load_waveform(path, segment=segment, longest=self.longest_audio)
        return to_int16(split_windows(waveform.samples, self.encoder.window_samples))

    def _kept_windows(self, windows: list[int], text_positions: int, name: str) -> list[int]:
        tokens = self.encoder.tokens_per_window
        by_windows = self.budget.windows * tokens + text_positions
        try:
            return windows_that_fit(windows, text_positions, tokens, min(self.budget.positions, by_windows))
        except ValueError as error:
            raise ManifestError(f"{name}: {error}") from None
