"""Manifests: the original's JSON (or JSON lines) of conversations about audio files, read and checked."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mufun_jax.errors import ManifestError, nearest
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn

_FIELDS = ("id", "audio", "time", "conversations", "task")
_MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class Example:
    """One conversation. `audio[i]` belongs to the i-th `<audio>`; `segments[i]` is its part in seconds, or None."""

    id: str
    audio: tuple[Path, ...]
    segments: tuple[tuple[float, float] | None, ...]
    turns: tuple[Turn, ...]
    task: str | None  # what an evaluation counts it under


def read_manifest(path: Path) -> list[Example]:
    """Reads a JSON list, or JSON lines (`.jsonl`). Audio paths are relative to the manifest's folder.

    Raises:
        ManifestError: names the file, the entry (or line) and what is wrong with it.
    """
    if not path.is_file():
        siblings = [other.name for other in path.parent.glob("*.json*")] if path.parent.is_dir() else []
        raise ManifestError(f"{path}: no such manifest{nearest(path.name, siblings)}")
    if path.stat().st_size > _MAX_BYTES:
        raise ManifestError(f"{path}: {path.stat().st_size} bytes, more than the {_MAX_BYTES} that are read")
    root = path.parent.resolve()
    examples = [_example(entry, where, root) for where, entry in _entries(path)]
    if not examples:
        raise ManifestError(f"{path}: holds no entry")
    return examples


def _entries(path: Path) -> Iterator[tuple[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield f"{path}, line {number}", _parse(line, f"{path}, line {number}")
        return
    entries = _parse(text, str(path))
    if not isinstance(entries, list):
        raise ManifestError(f"{path}: a manifest is a JSON list of entries, not {type(entries).__name__}")
    for number, entry in enumerate(entries, 1):
        name = entry.get("id", "") if isinstance(entry, dict) else ""
        yield f"{path}, entry {number}" + (f" ({name})" if name else ""), entry


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where}: not JSON: {error}") from None


def _example(entry: Any, where: str, root: Path) -> Example:
    if not isinstance(entry, dict):
        raise ManifestError(f"{where}: an entry is a JSON object, not {type(entry).__name__}")
    for key in entry:
        if key not in _FIELDS:
            raise ManifestError(f"{where}: unknown field {key!r}{nearest(key, list(_FIELDS))}")
    audio = tuple(_audio_path(name, where, root) for name in _as_list(entry.get("audio")))
    times = _as_list(entry.get("time")) if _is_several(entry.get("time")) else [entry.get("time")] * len(audio)
    if len(times) != len(audio):
        raise ManifestError(f"{where}: {len(audio)} audio files but {len(times)} times")
    turns = _turns(entry.get("conversations"), where)
    placeholders = sum(turn.question.count(AUDIO_PLACEHOLDER) for turn in turns)
    if placeholders != len(audio):
        raise ManifestError(f"{where}: {placeholders} {AUDIO_PLACEHOLDER} but {len(audio)} audio files")
    segments = tuple(_segment(time, where) for time in times)
    return Example(str(entry.get("id", where)), audio, segments, turns, entry.get("task"))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _is_several(time: Any) -> bool:
    return isinstance(time, list) and bool(time) and (time[0] is None or isinstance(time[0], list))


def _audio_path(name: Any, where: str, root: Path) -> Path:
    """A path under the manifest's folder. Others' manifests must not reach other files, nor the network."""
    if not isinstance(name, str) or not name:
        raise ManifestError(f"{where}: audio must be a file name, not {name!r}")
    if "://" in name:
        raise ManifestError(f"{where}: audio {name!r} is a URL; download it and name the file")
    if PurePosixPath(name).is_absolute() or not (root / name).resolve().is_relative_to(root):
        raise ManifestError(f"{where}: audio {name!r} lies outside the manifest's folder; move it there")
    return root / name


def _segment(time: Any, where: str) -> tuple[float, float] | None:
    if time is None:
        return None
    numbers = isinstance(time, list) and all(isinstance(t, int | float) and not isinstance(t, bool) for t in time)
    if not numbers or len(time) != 2 or not 0 <= time[0] < time[1]:
        raise ManifestError(f"{where}: time must be [start, end] in seconds with 0 <= start < end, not {time!r}")
    return float(time[0]), float(time[1])


def _turns(messages: Any, where: str) -> tuple[Turn, ...]:
    """Pairs of a human's question and the model's answer."""
    if not isinstance(messages, list) or not messages:
        raise ManifestError(f"{where}: conversations must be a list of messages")
    values = []
    for number, message in enumerate(messages):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(message, dict) or message.get("from") != speaker:
            raise ManifestError(f"{where}: message {number + 1} must be from {speaker!r}: they take turns")
        value = message.get("value")
        if not isinstance(value, str) or (speaker == "gpt" and not value.strip()):
            raise ManifestError(f"{where}: message {number + 1} from {speaker!r} has no text")
        values.append(value)
    if len(values) % 2:
        raise ManifestError(f"{where}: the last question has no answer")
    return tuple(Turn(*pair) for pair in zip(values[::2], values[1::2], strict=True))
