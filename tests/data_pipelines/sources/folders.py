"""Writes small data sets, and reads them with what is asked of every reader."""

import json
from pathlib import Path

import numpy as np
import soundfile

from data_pipelines.manifest import read_manifest
from data_pipelines.questions import Questioner
from data_pipelines.sources.data_set import Clip, DataSet


def write_tone(path: Path, pitch: float = 440.0) -> None:
    """A tenth of a second of a sine, in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seconds = np.arange(1600) / 16_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch * seconds), 16_000)


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read_checked(data_set: DataSet, folder: Path, absent: tuple[str, ...] = ()) -> dict[str, Clip]:
    """The clips by id: in the same order twice, each with its audio (but for `absent`), all fit for a manifest."""
    clips = list(data_set.read(folder))
    assert clips == list(data_set.read(folder))
    assert all(part for part in (data_set.licence, data_set.layout, data_set.url, data_set.splits))
    assert data_set.hours > 0
    for clip in clips:
        assert (folder / clip.audio).is_file() != (clip.audio in absent), clip.audio
        assert clip.id.startswith(f"{data_set.name}-")
    questioner = Questioner(0, data_set.name)
    entries = [entry for clip in clips for entry in questioner.entries_of(clip)]
    manifest = folder / "questions.json"
    manifest.write_text(json.dumps(entries), encoding="utf-8")
    assert len({example.id for example in read_manifest(manifest)}) == len(entries)
    assert len(entries) >= len(clips)
    manifest.unlink()
    return {clip.id: clip for clip in clips}


def answers(clip: Clip) -> dict[str, tuple[str, ...]]:
    """What is known of the clip, by task."""
    return {label.task: label.answers for label in clip.labels}
