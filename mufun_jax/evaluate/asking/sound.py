"""What a question's prompt lets the model hear: its own song, another question's, silence, or nothing."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mufun_jax.audio.wav import wav_bytes
from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import BenchmarkQuestion, Song
from mufun_jax.evaluate.result import Condition

_SILENCE_SECONDS = 30


@dataclass(frozen=True)
class Sound:
    """Songs, and the part of the first one in seconds. None for the whole."""

    songs: tuple[Song, ...]
    segment: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        """The same for all prompts that begin with this sound."""
        return hashlib.sha256(repr(([song.key for song in self.songs], self.segment)).encode()).hexdigest()


def own_sound(question: BenchmarkQuestion) -> Sound:
    return Sound((question.song, *question.more_songs), question.segment)


def sounds(
    questions: Sequence[BenchmarkQuestion], everything: Sequence[BenchmarkQuestion], condition: Condition
) -> Mapping[str, Sound | None]:
    """What each question's prompt has under a condition, by the question's id.

    Raises UserError where a question is to get another song and there is none.
    """
    match condition:
        case "audio":
            return {question.id: own_sound(question) for question in questions}
        case "text_only":
            return {question.id: None for question in questions}
        case "silence":
            song = Song(f"{_SILENCE_SECONDS} s of silence", _silence)
            return {question.id: Sound((song,) * (1 + len(question.more_songs))) for question in questions}
        case "other_song":
            return other_sounds(questions, everything)


def other_sounds(
    questions: Iterable[BenchmarkQuestion], everything: Sequence[BenchmarkQuestion]
) -> dict[str, Sound | None]:
    """For each question the sound of another one with none of its songs, of its set if there is one, by its id.

    Which one depends on the question's id and on the songs that there are in `everything`, not on their order.

    Raises UserError where all questions are on one song.
    """
    of_set: dict[tuple[str | None, int], dict[str, Sound]] = {}
    for question in everything:
        sound = own_sound(question)
        for name in (question.set, None):
            of_set.setdefault((name, len(sound.songs)), {})[sound.key] = sound
    ordered = {name: [found[key] for key in sorted(found)] for name, found in of_set.items()}
    return {question.id: _other(question, ordered) for question in questions}


def _other(question: BenchmarkQuestion, ordered: Mapping[tuple[str | None, int], Sequence[Sound]]) -> Sound:
    own = own_sound(question)
    keys = {song.key for song in own.songs}
    first = int.from_bytes(hashlib.sha256(question.id.encode("utf-8", "surrogatepass")).digest()[:8])
    for name in (question.set, None):
        there = ordered[name, len(own.songs)]
        for step in range(len(there)):
            sound = there[(first + step) % len(there)]
            if not keys & {song.key for song in sound.songs}:
                return sound
    raise UserError(
        f"question {question.id!r}: there is no question on another song, which it could be asked with; leave "
        f"other_song out of --conditions"
    )


def _silence() -> bytes:
    return wav_bytes(np.zeros(_SILENCE_SECONDS * SAMPLE_RATE, np.int16), SAMPLE_RATE, "silence")
