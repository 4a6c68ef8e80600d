"""Manifests: the original's JSON (or JSON lines) of conversations about audio files, read and checked."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mufun_jax.errors import ManifestError, nearest
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn

_FIELDS = ("id", "audio", "time", "conversations", "task")
_LIST_LIMIT = 4 << 30  # bytes of a JSON list, which is read whole; JSON lines have no limit
_LINE_LIMIT = 16 << 20  # bytes of one line
_LONGEST_TIME = 1e7  # seconds
_SHOWN = 3  # rejected entries in an error's line; all are in a report
_LONGEST_REASON = 1000  # characters that a report keeps of what is wrong with an entry
_LONGEST_NAME = 255  # bytes of a file's name, on most file systems


@dataclass(frozen=True)
class Example:
    """One conversation. `audio[i]` belongs to the i-th `<audio>`; `segments[i]` is its part in seconds, or None."""

    id: str
    audio: tuple[Path, ...]
    segments: tuple[tuple[float, float] | None, ...]
    turns: tuple[Turn, ...]
    tasks: tuple[str, ...] = ()  # what each turn is counted under; empty: not said

    @property
    def task(self) -> str | None:
        """The one task of all turns, or None."""
        return self.tasks[0] if len(set(self.tasks)) == 1 else None


@dataclass(frozen=True)
class Rejected:
    """An entry, or a part of one, that is left out: where it stood, and what is wrong with it."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def listed(rejected: Sequence[Rejected]) -> str:
    """The first few for an error's line, and how many more there are."""
    more = f"; and {len(rejected) - _SHOWN} more" if len(rejected) > _SHOWN else ""
    return "; ".join(str(one) for one in rejected[:_SHOWN]) + more


def read_manifest(path: Path) -> list[Example]:
    """Reads a JSON list, or JSON lines (`.jsonl`). Audio paths are relative to the manifest's folder.

    Raises:
        ManifestError: names the file, the entry (or line) and what is wrong with it.
    """
    examples = []
    for _, example in read_entries(path):
        if isinstance(example, Rejected):
            raise ManifestError(str(example))
        examples.append(example)
    if not examples:
        raise ManifestError(f"{path}: holds no entry")
    return examples


def read_entries(path: Path) -> Iterator[tuple[str, Example | Rejected]]:
    """The entries of a manifest one by one, each with where it stands; what is wrong with a bad one in its place.

    A line is read at a time.

    Raises ManifestError where the file itself cannot be read.
    """
    if not path.is_file():
        siblings = [other.name for other in path.parent.glob("*.json*")] if path.parent.is_dir() else []
        raise ManifestError(f"{path}: no such manifest{nearest(path.name, siblings)}")
    root = path.parent.resolve()
    for where, entry in _lines(path) if path.suffix == ".jsonl" else _list(path):
        yield where, entry if isinstance(entry, Rejected) else checked(entry, where, root)


def checked(entry: Any, where: str, root: Path | None) -> Example | Rejected:
    """An entry as an example, or what is wrong with it. `where` is how messages name it.

    Paths lie below `root`. Without a root they are only names, of audio that is somewhere else.
    """
    try:
        return _example(entry, where, root)
    except _BadEntryError as error:
        return Rejected(where, _cut(str(error)))


class _BadEntryError(ValueError):
    pass


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LINE_LIMIT + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > _LINE_LIMIT:
                while line and not line.endswith(b"\n"):
                    line = file.readline(_LINE_LIMIT)
                yield where, Rejected(where, f"longer than {_LINE_LIMIT} bytes")
            elif line.strip():
                yield where, _parse(line, where)


def _list(path: Path) -> Iterator[tuple[str, Any]]:
    size = path.stat().st_size
    if size > _LIST_LIMIT:
        raise ManifestError(f"{path}: {size} bytes, more than the {_LIST_LIMIT} of a list; write it as JSON lines")
    entries = _parse(path.read_bytes(), str(path))
    if isinstance(entries, Rejected):
        raise ManifestError(str(entries))
    if not isinstance(entries, list):
        raise ManifestError(f"{path}: a manifest is a JSON list of entries, not {type(entries).__name__}")
    for number, entry in enumerate(entries, 1):
        name = entry.get("id", "") if isinstance(entry, dict) else ""
        yield f"{path}, entry {number}" + (f" ({str(name)[:80]})" if name else ""), entry


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return Rejected(where, _cut(f"not JSON: {error}"))


def _cut(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]} …"


def _example(entry: Any, where: str, root: Path | None) -> Example:
    if not isinstance(entry, dict):
        raise _BadEntryError(f"an entry is a JSON object, not {type(entry).__name__}")
    for key in entry:
        if key not in _FIELDS:
            raise _BadEntryError(f"unknown field {key!r}{nearest(key, list(_FIELDS))}")
    audio = tuple(_audio_path(name, root) for name in _as_list(entry.get("audio")))
    times = _as_list(entry.get("time")) if _is_several(entry.get("time")) else [entry.get("time")] * len(audio)
    if len(times) != len(audio):
        raise _BadEntryError(f"{len(audio)} audio files but {len(times)} times")
    turns = _turns(entry.get("conversations"))
    placeholders = sum(turn.question.count(AUDIO_PLACEHOLDER) for turn in turns)
    if placeholders != len(audio):
        raise _BadEntryError(f"{placeholders} {AUDIO_PLACEHOLDER} but {len(audio)} audio files")
    name = entry.get("id", where)
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise _BadEntryError(f"id must be a text or a number, not {name!r}")
    return Example(_text(str(name)), audio, tuple(map(_segment, times)), turns, _tasks(entry.get("task"), len(turns)))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _is_several(time: Any) -> bool:
    return isinstance(time, list) and bool(time) and (time[0] is None or isinstance(time[0], list))


def _audio_path(name: Any, root: Path | None) -> Path:
    """A path under the manifest's folder. Others' manifests must not reach other files, nor the network."""
    if not isinstance(name, str) or not name:
        raise _BadEntryError(f"audio must be a file name, not {name!r}")
    if "://" in name:
        raise _BadEntryError(f"audio {name!r} is a URL; download it and name the file")
    if "\0" in _text(name) or any(len(part.encode()) > _LONGEST_NAME for part in name.split("/")) or len(name) > 4000:
        raise _BadEntryError(f"audio {name[:80]!r} is no file name")
    if root is None:
        return Path(name)
    try:
        inside = not PurePosixPath(name).is_absolute() and (root / name).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # links in a circle
        raise _BadEntryError(f"audio {name!r} cannot be followed; put the file itself there") from None
    if not inside:
        raise _BadEntryError(f"audio {name!r} lies outside the manifest's folder; move it there")
    return root / name


def _segment(time: Any) -> tuple[float, float] | None:
    if time is None:
        return None
    numbers = isinstance(time, list) and all(isinstance(t, int | float) and not isinstance(t, bool) for t in time)
    if not numbers or len(time) != 2 or not 0 <= time[0] < time[1] or time[0] > _LONGEST_TIME:
        raise _BadEntryError(f"time must be [start, end] in seconds with 0 <= start < end, not {time!r}")
    if time[1] > _LONGEST_TIME:
        raise _BadEntryError(f"time ends after {_LONGEST_TIME:g} s: {time!r}")
    return float(time[0]), float(time[1])


def _tasks(task: Any, turns: int) -> tuple[str, ...]:
    """One name for all turns, or a list of a name for each."""
    names = _as_list(task) if isinstance(task, list) else _as_list(task) * turns
    if not all(isinstance(name, str) and name for name in names) or len(names) not in (0, turns):
        raise _BadEntryError(f"task must be a name, or a list of one name for each of {turns} answers, not {task!r}")
    return tuple(_text(name) for name in names)


def _turns(messages: Any) -> tuple[Turn, ...]:
    """Pairs of a human's question and the model's answer."""
    if not isinstance(messages, list) or not messages:
        raise _BadEntryError("conversations must be a list of messages")
    values = []
    for number, message in enumerate(messages):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(message, dict) or message.get("from") != speaker:
            raise _BadEntryError(f"message {number + 1} must be from {speaker!r}: they take turns")
        if unknown := set(message) - {"from", "value"}:
            raise _BadEntryError(f"message {number + 1}: unknown field {min(unknown)!r}; known: from, value")
        value = message.get("value")
        if not isinstance(value, str) or (speaker == "gpt" and not value.strip()):
            raise _BadEntryError(f"message {number + 1} from {speaker!r} has no text")
        values.append(_text(value))
    if len(values) % 2:
        raise _BadEntryError("the last question has no answer")
    if any(AUDIO_PLACEHOLDER in answer for answer in values[1::2]):
        raise _BadEntryError(f"an answer holds {AUDIO_PLACEHOLDER}; only questions may")
    return tuple(Turn(*pair) for pair in zip(values[::2], values[1::2], strict=True))


def _text(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _BadEntryError(f"a text holds half of a surrogate pair: {value[:80]!r}") from None
    return value
