"""From a question to arrays: files are decoded and cut into windows, text is tokenised, both are spliced.

What a prompt has up to the end of its last song, the prefix, is the same for every question about that song.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float, Int32

from mufun_jax.audio.waveform import load_waveform
from mufun_jax.audio.windows import DROPPED_TAIL, seconds_heard, split_windows
from mufun_jax.config import SAMPLE_RATE, ModelConfig
from mufun_jax.errors import AudioError, UserError
from mufun_jax.generate.question import Question, Segment, song_name
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

    def __init__(self, config: ModelConfig, tokenizer: Tokenizer, most_windows: int):
        """`most_windows` may be heard where a question wants `all` of a long song."""
        self._config, self._tokenizer, self._most_windows = config, tokenizer, max(most_windows, config.max_windows)
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
        most = self._most_windows if question.long == "all" else self._config.max_windows
        if len(question.audio_files) > most:
            raise UserError(
                f"{len(question.audio_files)} audio files are more than the {most} windows that the model hears; each "
                f"file needs one"
            )
        room = most // max(1, len(question.audio_files))
        segments = question.segments or (None,) * len(question.audio_files)
        songs = [
            self.song(audio, segment, room, song_name(number))
            for number, (audio, segment) in enumerate(zip(question.audio_files, segments, strict=True), 1)
        ]
        encoder = self._config.encoder
        spliced = splice(pieces, [len(song.windows) for song in songs], encoder.tokens_per_window)
        split = len(spliced.tokens) - len(pieces[-1].ids) if songs else 0
        said = hashlib.blake2b(spliced.tokens[:split].tobytes() + spliced.audio_slot[:split].tobytes())
        for song in songs:
            said.update(song.digest)
        empty = np.zeros((0, encoder.window_samples), np.float32)
        windows = np.concatenate([empty, *(song.windows for song in songs)])
        heard = tuple(song.heard for song in songs)
        if len(windows) > self._config.max_windows:
            seconds = f"{len(windows) * encoder.window_seconds:g} s are heard at once"
            untrained = f"{seconds}, where the model has learned to hear {self._config.max_seconds:g} s"
            heard = tuple(replace(one, warnings=(*one.warnings, f"{one.file}: {untrained}")) for one in heard)
        return Prompt(spliced, split, windows, heard, said.digest())

    def song(self, audio: Path | bytes, segment: Segment, room: int, name: str = song_name(1)) -> Song:
        """The first windows of a file (or of its segment), `room` at most. Raises AudioError."""
        key = _identity(audio, segment, room)
        found = self._songs.get(key) if key else None
        if found is None:
            found = self._read(audio, segment, room, name)
            if key and found.windows.nbytes <= self._songs.maxsize:
                self._songs[key] = found
        if isinstance(audio, bytes) and found.heard.file != name:
            found = replace(found, heard=replace(found.heard, file=name))
        return found

    def passes(self, question: Question) -> list[Question]:
        """A question about one long song as several, about its parts one after the other, each as long as it can be.

        Raises:
            AudioError: the file cannot be read. UserError: it is not about one song.
        """
        if len(question.audio_files) != 1:
            raise UserError(
                f"{len(question.audio_files)} songs in several passes: give one, or let it be long='first' or 'all'"
            )
        audio, segment = question.audio_files[0], (question.segments or (None,))[0]
        whole = self.song(audio, segment, self._config.max_windows, song_name(1)).heard
        start, end = whole.start, whole.start + whole.seconds_used + whole.seconds_dropped
        longest = self._config.max_seconds
        tail = DROPPED_TAIL / SAMPLE_RATE
        count = max(1, math.ceil((end - start - tail) / longest))
        edges = [*(start + longest * number for number in range(count)), end]
        return [replace(question, segments=(edge,), long="first") for edge in pairwise(edges)]

    def _read(self, audio: Path | bytes, segment: Segment, room: int, name: str) -> Song:
        encoder = self._config.encoder
        file = name if isinstance(audio, bytes) else str(audio)
        part = None if segment is None else (float(segment[0]), float(segment[1]))
        waveform = load_waveform(audio, name=file, segment=part, longest=room * encoder.window_seconds)
        start, end = part if part is not None else (0.0, waveform.file_seconds)
        asked = min(end, waveform.file_seconds) - start
        if asked > MAX_SECONDS:
            raise AudioError(
                f"{file}: too long, {asked:.1f} s where at most {MAX_SECONDS:g} s are taken; choose a part of it "
                f"(on the command line --segment START END)"
            )
        windows = split_windows(waveform.samples, encoder.window_samples)[:room]
        hearing = seconds_heard(asked, encoder.window_samples, room)
        heard = Heard(
            file=file,
            file_seconds=round(waveform.file_seconds, 3),
            start=start,
            seconds_used=round(hearing.used_seconds, 3),
            seconds_dropped=round(hearing.dropped_seconds, 3),
            windows=len(windows),
            warnings=waveform.warnings,
        )
        return Song(windows, heard, hashlib.blake2b(windows.tobytes()).digest())


def _identity(audio: Path | bytes, segment: Segment, room: int) -> tuple | None:
    """What a file is known by as long as nobody writes it; None where there is none, which reading it will say."""
    part = None if segment is None else tuple(segment)
    if isinstance(audio, bytes):
        return (hashlib.blake2b(audio).digest(), part, room)
    try:
        found = audio.stat()
    except OSError:
        return None
    return (str(audio), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, part, room)
