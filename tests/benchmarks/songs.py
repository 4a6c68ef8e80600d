"""Songs for benchmarks, 44.1 kHz stereo and 180 s long, synthesised; and manifests with questions about them."""

import json
import os
import random
from collections.abc import Sequence
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 44_100
SECONDS = 180  # whole windows of 30 s, so windows count the audio exactly
_BLOCK = 1 << 16  # frames written at once
_SCALE = (0, 2, 3, 5, 7, 8, 10)
_WORDS = [
    "a",
    "slow",
    "bright",
    "guitar",
    "melody",
    "over",
    "soft",
    "drums",
    "and",
    "deep",
    "bass",
    "with",
    "warm",
    "strings",
    "in",
    "the",
    "second",
    "half",
]


def write_songs(folder: Path, count: int, copies: int) -> None:
    """Writes `count` songs as OGG Vorbis and as FLAC (`song-0.ogg`, …), each under `copies` names more (hard links)."""
    folder.mkdir(parents=True, exist_ok=True)
    with get_context("spawn").Pool(os.cpu_count()) as pool:
        pool.starmap(_write_song, [(folder, number) for number in range(count)])
    for number in range(count * copies):
        for suffix in ("ogg", "flac"):
            os.link(song(folder, number % count, suffix), song(folder, count + number, suffix))


def song(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"song-{number}.{suffix}"


def write_manifest(path: Path, heard: Sequence[tuple[Path, tuple[float, float] | None]]) -> None:
    """One conversation about each file, or about a part of it in seconds."""
    rng = random.Random(0)
    entries = []
    for number, (audio, part) in enumerate(heard):
        entry: dict[str, Any] = {
            "id": f"{path.stem}-{number}",
            "audio": audio.name,
            "conversations": _conversation(rng),
        }
        entries.append(entry | ({"time": list(part)} if part else {}))
    path.write_text(json.dumps(entries))


def _conversation(rng: random.Random) -> list[dict[str, str]]:
    """A question with four options, a caption of 15 to 60 words, or both: 0.1 to 0.6 kB."""
    letters = "ABCD"
    options = "\n".join(f"{letter}. {rng.choice(_WORDS)} {rng.choice(_WORDS)}" for letter in letters)
    asked = [("What do you hear in this recording?\n" + options, f"{rng.choice(letters)}. {rng.choice(_WORDS)}")]
    told = [("Describe the music in your own words.", " ".join(rng.choices(_WORDS, k=rng.randint(15, 60))) + ".")]
    turns = rng.choice([asked, told, asked + told])
    messages = []
    for number, (question, answer) in enumerate(turns):
        messages.append({"from": "human", "value": ("" if number else "<audio>\n") + question})
        messages.append({"from": "gpt", "value": answer})
    return messages


def _write_song(folder: Path, seed: int) -> None:
    pcm = (synthesise(seed) * 32_000).astype(np.int16)
    for suffix, form, subtype in (("ogg", "OGG", "VORBIS"), ("flac", "FLAC", "PCM_16")):
        with soundfile.SoundFile(song(folder, seed, suffix), "w", RATE, 2, subtype, format=form) as file:
            for start in range(0, len(pcm), _BLOCK):
                file.write(pcm[start : start + _BLOCK])


def synthesise(seed: int) -> np.ndarray:
    """Chords, bass and melody of decaying harmonics, left and right, and noise for drums. [frames, 2], peak 1."""
    rng = np.random.default_rng(seed)
    beat = int(RATE * 60 / rng.integers(80, 150))
    frames = SECONDS * RATE
    sound = np.zeros((frames + 4 * beat, 2), np.float32)
    tonic = int(rng.integers(45, 57))
    root = 0
    for number, start in enumerate(range(0, frames, beat)):
        if number % 4 == 0:
            root = int(rng.integers(7))
            for step in (0, 2, 4):
                _add(sound, start, _note(tonic + 12 + _degree(root + step), 4 * beat, 1.5), 0.25 + 0.25 * step / 4)
            _add(sound, start, 2 * _note(tonic - 12 + _degree(root), 2 * beat, 1.0), 0.5)
        _add(sound, start, 1.5 * _note(tonic + 24 + _degree(int(rng.integers(7))), beat, 3.0), rng.uniform(0.2, 0.8))
        for offset, loudness in ((0, 0.4), (beat // 2, 0.2)):
            hit = rng.standard_normal(beat // 4).astype(np.float32) * np.exp(-np.arange(beat // 4) / 900)
            _add(sound, start + offset, loudness * hit, 0.6)
    sound = sound[:frames] + 1e-3 * rng.standard_normal((frames, 2), np.float32)
    return sound / np.abs(sound).max()


def _degree(step: int) -> int:
    """Semitones above the tonic of a step of the scale."""
    return 12 * (step // 7) + _SCALE[step % 7]


@cache
def _note(pitch: int, frames: int, decay: float) -> np.ndarray:
    time = np.arange(frames, dtype=np.float32) / RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    harmonics = [n for n in range(1, 9) if n * frequency < RATE / 2]
    wave = sum(np.sin(2 * np.pi * n * frequency * time) * np.exp(-decay * n * time) / n for n in harmonics)
    return (np.asarray(wave) * np.minimum(1, time / 0.005)).astype(np.float32)


def _add(sound: np.ndarray, start: int, mono: np.ndarray, right: float) -> None:
    stop = min(len(sound), start + len(mono))
    sound[start:stop] += mono[: stop - start, None] * np.array([1 - right, right], np.float32)
