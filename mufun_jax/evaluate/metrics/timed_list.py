"""Lists of labels with their times, as models and people write them: sections, chords."""

import json
import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_MOST = 10_000  # entries
_LONGEST_ENTRY = 300  # characters
_LATEST = 1e6  # seconds

_CLOCK = r"(?:\d{1,2}:)?\d{1,3}:\d{2}(?:\.\d+)?"
_SECONDS = r"\d+(?:\.\d+)?"
_TO = r"\s*(?:-|–|—|to\b|until\b|,)\s*"
_TO_OR_SPACE = rf"(?:{_TO}|\s+)"
_END = r"(?:\s?s(?:ec(?:onds)?)?\b)?(?![\w#]|[.:]\d)"  # a time ends here: "2nd" holds none


def _times(time: str, apart: str) -> str:
    return rf"(?P<start>{time}){_END}(?:{apart}(?P<end>{time}){_END})?"


# 0:00-0:15 intro; [0:00 - 0:15] intro; 0:12 verse; 0.0 2.5 C:maj; 0.0,2.5,C:maj
_TIME_FIRST = [
    re.compile(rf"[\[(]?\s*{_times(time, _TO_OR_SPACE)}\s*[\])]?\s*[:,–—-]?\s*(?P<label>{label}.*)", re.DOTALL)
    for time, label in ((_CLOCK, ""), (_SECONDS, r"(?![\d\s])"))  # behind bare seconds a number is no label
]
# intro: 0:00-0:15; intro (0:00-0:15); intro 0:00. Bare seconds need both ends: "verse 2" is a label.
_LABEL_FIRST = [
    re.compile(rf"(?P<label>\D.*?)\s*[:,]?\s*[\[(]?\s*{_times(_CLOCK, _TO)}\s*[\])]?", re.DOTALL),
    re.compile(
        rf"(?P<label>\D.*?)\s*[:,]?\s*[\[(]?\s*(?P<start>{_SECONDS}){_END}{_TO}(?P<end>{_SECONDS}){_END}\s*[\])]?",
        re.DOTALL,
    ),
]
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)
_BULLET = re.compile(r"^ ?[-*•] ")
_COMMA = re.compile(r",(?![^()\[\]]*[)\]])")  # outside brackets


@dataclass(frozen=True)
class Timed:
    """A label from `start` to `end` in seconds; the end is None where it is not said. The label may be empty."""

    start: float
    end: float | None
    label: str


def read_timed(text: str) -> list[Timed] | None:
    """The entries of a list in the order of their starts, as written; None for what is no such list.

    It is JSON, `[[0, 15.2, "intro"], …]` or `[{"start": 0, "end": 15.2, "label": "intro"}, …]`, or text with an entry a
    line, or between semicolons or commas: `0:00-0:15 intro; 0:15-0:45 verse`, `0:00 intro, 0:15 verse`,
    `intro (0:00-0:15), verse (0:15-0:45)`, `0.0 2.5 C:maj`. Times are seconds or [h:]m:ss. Lines without a digit, or
    that end with a colon, are taken for the sentence around the list; any other line that is no entry makes the whole
    unreadable, as do starts out of order and an end that is not after its start. An entry without an end lasts until
    the next. Entries may overlap: see `overlaps`.
    """
    fenced = _FENCE.search(text)
    inner = (fenced[1] if fenced else text).strip()
    entries = _from_json(inner) if inner[:1] in ("[", "{") and _is_json(inner) else _from_text(inner)
    if not entries or len(entries) > _MOST:
        return None
    ends = [after.start for after in entries[1:]] + [None]
    full = [Timed(e.start, end if e.end is None else e.end, e.label) for e, end in zip(entries, ends, strict=True)]
    in_order = all(before.start < after.start for before, after in pairwise(full))
    sound = all(0 <= e.start <= _LATEST and (e.end is None or e.start < e.end <= _LATEST) for e in full)
    return full if in_order and sound else None


def overlaps(entries: list[Timed]) -> bool:
    """Whether an entry ends after the next begins."""
    return any(before.end is not None and before.end > after.start for before, after in pairwise(entries))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _from_json(text: str) -> list[Timed] | None:
    value = json.loads(text)
    if not isinstance(value, list):
        return None
    entries = [_json_entry(entry) for entry in value]
    return None if None in entries else [entry for entry in entries if entry is not None]


def _json_entry(entry: Any) -> Timed | None:
    match entry:
        case [start, end, str(label)]:
            pass
        case {"start": start, "label": str(label)} | {"start": start, "chord": str(label)}:
            end = entry.get("end")
        case _:
            return None
    if not _is_time(start) or not (end is None or _is_time(end)):
        return None
    return Timed(float(start), None if end is None else float(end), label.strip())


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _from_text(text: str) -> list[Timed] | None:
    entries: list[Timed] = []
    for line in re.split(r"[\n;]", text):
        line = _BULLET.sub("", re.sub(r"\s+", " ", line)).strip().rstrip(".,")
        if not re.search(r"\d", line) or line.endswith(":"):
            continue
        whole = [_text_entry(line)] if _is_csv(line) else [_text_entry(piece) for piece in _pieces(line)]
        for entry in whole:
            if entry is None:
                return None
            entries.append(entry)
    return entries


def _is_csv(line: str) -> bool:
    return re.fullmatch(rf"{_SECONDS},\s*{_SECONDS},[^,]*", line) is not None


def _pieces(line: str) -> list[str]:
    """The line between its commas; a piece without a time belongs to the label before it."""
    pieces: list[str] = []
    for piece in _COMMA.split(line):
        if pieces and not re.search(r"\d", piece):
            pieces[-1] += f",{piece}"
        else:
            pieces.append(piece.strip())
    return pieces


def _text_entry(piece: str) -> Timed | None:
    if len(piece) > _LONGEST_ENTRY:
        return None
    for pattern in (*_TIME_FIRST, *_LABEL_FIRST):
        found = pattern.fullmatch(piece)
        # A time within the label: the piece is more than an entry.
        if found is not None and not re.search(_CLOCK, found["label"]):
            end = found["end"]
            return Timed(_seconds(found["start"]), None if end is None else _seconds(end), found["label"].strip())
    return None


def _seconds(time: str) -> float:
    seconds = 0.0
    for part in time.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds
