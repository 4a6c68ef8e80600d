"""From a question to arrays: files are decoded and cut into windows, text is tokenised, both are spliced.

What a prompt has up to the end of its last song, the prefix, is the same for every question about that song.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float, Int32

from mufun_jax.audio.waveform import load_waveform
from mufun_jax.audio.windows import seconds_heard, split_windows
from mufun_jax.config import ModelConfig
from mufun_jax.errors import AudioError, UserError
from mufun_jax.generate.question import Question, Segment
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn, render
from mufun_jax.text.splice import Spliced, splice
from mufun_jax.text.tokenizer import Tokenizer

MAX_SECONDS = 3600.0  # of one file or segment; longer ones are refused rather than heard in small part
_KEPT_SAMPLES = 512 * 1024**2  # bytes of decoded songs; 390 s are 25 MB


@dataclass(frozen=True)
class Heard:
    """What the model heard of one file, in seconds of that file."""

    file: str
    file_seconds: float
    start: float
    seconds_used: float
    seconds_dropped: float  # of what was asked for: beyond the model's context, or a tail of half a second or less
    windows: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Song:
    """The windows of a file, or of its segment, that the model hears."""

    windows: Float[np.ndarray, "W S"]
    heard: Heard
    digest: bytes  # of the windows


@dataclass(frozen=True)
class Prompt:
    """A question as arrays. Positions before `split` are the prefix, those from it on are text alone."""

    spliced: Spliced
    split: int
    windows: Float[np.ndarray, "W S"]
    heard: tuple[Heard, ...]
    digest: bytes  # of the prefix

    @property
    def text(self) -> Int32[np.ndarray, " L"]:
        """The tokens after the prefix: at least one."""
        return self.spliced.tokens[self.split :]


class Listener:
    """Makes prompts. Songs that it has decoded stay in memory, the least recently used ones go first."""

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer):
        self._config, self._tokenizer = config, tokenizer
        self._songs: LRUCache[tuple, Song] = LRUCache(_KEPT_SAMPLES, getsizeof=lambda song: song.windows.nbytes)

    def prompt(self, question: Question) -> Prompt:
        """Reads the files of a question and splices them into its text.

        Raises:
            AudioError: a file cannot be read. UserError: `<audio>` and files differ in number.
        """
        pieces = self._tokenizer.encode_pieces(render([*question.history, Turn(question.prompt)]))
        if len(pieces) - 1 != len(question.audio_files):
            raise UserError(
                f"the prompt has {len(pieces) - 1} {AUDIO_PLACEHOLDER} but {len(question.audio_files)} audio files "
                f"were given; write {AUDIO_PLACEHOLDER} once for each file"
            )
        if len(question.audio_files) > self._config.max_windows:
            raise UserError(
                f"{len(question.audio_files)} audio files are more than the {self._config.max_windows} windows "
                "that the model hears; each file needs one"
            )
        room = self._config.max_windows // max(1, len(question.audio_files))
        segments = question.segments or (None,) * len(question.audio_files)
        songs = [self.song(*one, room) for one in zip(question.audio_files, segments, strict=True)]
        encoder = self._config.encoder
        spliced = splice(pieces, [len(song.windows) for song in songs], encoder.tokens_per_window)
        split = len(spliced.tokens) - len(pieces[-1].ids) if songs else 0
        said = hashlib.blake2b(spliced.tokens[:split].tobytes() + spliced.audio_slot[:split].tobytes())
        for song in songs:
            said.update(song.digest)
        empty = np.zeros((0, encoder.window_samples), np.float32)
        windows = np.concatenate([empty, *(song.windows for song in songs)])
        return Prompt(spliced, split, windows, tuple(song.heard for song in songs), said.digest())

    def song(self, path: Path, segment: Segment, room: int) -> Song:
        """The first windows of a file (or of its segment), `room` at most. Raises AudioError."""
        key = _identity(path, segment, room)
        found = self._songs.get(key) if key else None
        if found is None:
            found = self._read(path, segment, room)
            if key and found.windows.nbytes <= self._songs.maxsize:
                self._songs[key] = found
        return found

    def _read(self, path: Path, segment: Segment, room: int) -> Song:
        encoder = self._config.encoder
        part = None if segment is None else (float(segment[0]), float(segment[1]))
        waveform = load_waveform(path, segment=part, longest=room * encoder.window_seconds)
        start, end = part if part is not None else (0.0, waveform.file_seconds)
        asked = min(end, waveform.file_seconds) - start
        if asked > MAX_SECONDS:
            raise AudioError(
                f"{path}: too long, {asked:.1f} s where at most {MAX_SECONDS:g} s are taken; choose a part of it "
                f"(on the command line --segment START END)"
            )
        windows = split_windows(waveform.samples, encoder.window_samples)[:room]
        hearing = seconds_heard(asked, encoder.window_samples, room)
        heard = Heard(
            file=str(path),
            file_seconds=round(waveform.file_seconds, 3),
            start=start,
            seconds_used=round(hearing.used_seconds, 3),
            seconds_dropped=round(hearing.dropped_seconds, 3),
            windows=len(windows),
            warnings=waveform.warnings,
        )
        return Song(windows, heard, hashlib.blake2b(windows.tobytes()).digest())


def _identity(path: Path, segment: Segment, room: int) -> tuple | None:
    """What a file is known by as long as nobody writes it; None where there is none, which reading it will say."""
    try:
        found = path.stat()
    except OSError:
        return None
    part = None if segment is None else tuple(segment)
    return (str(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, part, room)
