"""A song that a stranger has sent: checked by its header, and drawn as a few numbers."""

from pathlib import Path

import numpy as np

from mufun_jax.audio import decoder
from mufun_jax.errors import AudioError
from mufun_jax.serve.limits import Limits


def check_song(path: Path, limits: Limits) -> float | None:
    """Its seconds, as the header says; None where it does not. Raises AudioError for no song, or too long a one."""
    with decoder.opened(path, path.name) as file:
        sound = decoder.checked_decoder(file, path.name)
        seconds = sound.frames / sound.samplerate
        if sound.frames >= decoder.UNKNOWN_LENGTH:
            return None
    if seconds > limits.song_seconds:
        raise AudioError(f"{path.name}: {seconds:.0f} s long, where at most {limits.song_seconds:g} s are taken")
    return seconds


def peaks(path: Path, bars: int) -> tuple[float, list[float]]:
    """A song's seconds, and how loud it is in each of so many equal parts of it, from 0 to 1. Raises AudioError."""
    with decoder.opened(path, path.name) as file:
        sound = decoder.checked_decoder(file, path.name)
        if sound.frames >= decoder.UNKNOWN_LENGTH:
            raise AudioError(f"{path.name}: tells its length nowhere; encode it anew")
        loudest = np.zeros(bars, np.float32)
        for position, block in decoder.placed_blocks(file, 0, sound.frames, sound.samplerate, past_damage=False):
            bar = (position + np.arange(len(block))) * bars // sound.frames
            np.maximum.at(loudest, np.minimum(bar, bars - 1), np.abs(block).max(axis=1))
        seconds = sound.frames / sound.samplerate
    scale = float(np.nan_to_num(loudest, nan=0.0, posinf=0.0).max()) or 1.0
    return seconds, [round(min(1.0, float(value) / scale), 3) for value in np.nan_to_num(loudest, posinf=0.0)]
