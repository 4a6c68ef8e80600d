"""Audio files that a benchmark's rows name: found below its folder, never outside."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mufun_jax.errors import CheckpointError
from mufun_jax.evaluate.benchmark_question import Song
from mufun_jax.evaluate.benchmarks.row import RowError, shown
from mufun_jax.weights.bounded_path import file_in


def find_song(root: Path, name: Any, places: Sequence[str] = (".",)) -> Song:
    """The song in a file, by a name as rows have it, looked for below each of `places`, folders below `root`.

    Raises:
        RowError: no such file, or one that is outside of `root`.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise RowError(f"the audio is {shown(name)}; it must be the name of a file")
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts:
        raise RowError(f"the audio {shown(name)} leads out of the benchmark's folder; name it relative to that")
    for place in places:
        relative = PurePosixPath(place) / pure
        try:
            path = file_in(root, str(relative))
        except CheckpointError as error:
            raise RowError(f"the audio {error}") from None
        if os.path.isfile(path):
            return Song(relative.as_posix(), lambda path=path: path)
    looked = ", ".join(sorted({str(root / place) for place in places}))
    raise RowError(f"no audio file {shown(name)} in {looked}")
