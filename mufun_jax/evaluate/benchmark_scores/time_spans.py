"""Sections of a song that a reply tells of: `0:00-0:15`, `from 12.5 to 30.1 seconds`, `[00:01:02.5 --> 00:01:10]`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_CLOCK = r"(?:(?:\d{1,2}:)?\d{1,3}:\d{2}(?:\.\d+)?)"
_NUMBER = r"\d{1,5}(?:\.\d+)?"
_UNIT = r"\s?(?:seconds|second|secs|sec|minutes|minute|mins|min|s|m)\b\.?"
_BETWEEN = r"\s*(?:-->|-|–|—|~|→|to|until|till|through|and)\s*"
_DECADE = r"(?:1[89]|20)\d0s\b"
_LONGEST_REPLY = 100_000  # characters that are searched

# A bare number is a time only with a unit behind it: `120 to 130 BPM` and `bars 4-8` are none.
_SPAN = re.compile(
    rf"(?<![\d.:])(?:(?P<clock_from>{_CLOCK})(?:\s?s\b)?{_BETWEEN}(?P<clock_to>{_CLOCK})"
    rf"|(?P<from>{_NUMBER})(?P<unit_from>{_UNIT})?{_BETWEEN}(?!{_DECADE})(?P<to>{_NUMBER})(?P<unit_to>{_UNIT})"
    rf"|\[\s*(?P<list_from>{_NUMBER})\s*,\s*(?P<list_to>{_NUMBER})\s*\])(?!\d|:\d)",
    re.IGNORECASE,
)


@dataclass(frozen=True, order=True)
class TimeSpan:
    """Seconds from the start of what was heard. A reply may put `end` before `start`."""

    start: float
    end: float


def time_spans(text: str) -> list[TimeSpan]:
    """The sections in a text, in its order, each once.

    Times with colons are (hours,) minutes and seconds; a bare number needs a unit (seconds or minutes) behind it, or
    stands with another in brackets, `[12.5, 30.1]`. What is said to begin or end without its other end is no section.
    """
    found = (_span(match) for match in _SPAN.finditer(text[:_LONGEST_REPLY]))
    return list(dict.fromkeys(found))


def _span(match: re.Match[str]) -> TimeSpan:
    if match["clock_from"]:
        return TimeSpan(_clock(match["clock_from"]), _clock(match["clock_to"]))
    if match["list_from"]:
        return TimeSpan(float(match["list_from"]), float(match["list_to"]))
    last = _factor(match["unit_to"])
    return TimeSpan(
        float(match["from"]) * (_factor(match["unit_from"]) if match["unit_from"] else last), float(match["to"]) * last
    )


def _clock(text: str) -> float:
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def _factor(unit: str) -> float:
    return 60.0 if unit.strip().lower().startswith("m") else 1.0


def impossible(spans: Iterable[TimeSpan], song_seconds: float, tolerance: float) -> list[str]:
    """What cannot be of sections of a song of that length, in a few words each: past its end, backwards, overlapping.

    Sections overlap where the next, in the order of their starts, begins more than `tolerance` seconds before the
    last one has ended.
    """
    wrong, reached = [], 0.0
    for span in sorted(spans):
        shown = f"{span.start:g}–{span.end:g} s"
        if max(span.start, span.end) > song_seconds + tolerance:
            wrong.append(f"{shown} is past the end at {song_seconds:g} s")
        if span.end < span.start:
            wrong.append(f"{shown} ends before it begins")
        elif span.start < reached - tolerance:
            wrong.append(f"{shown} begins before the section before it ends, at {reached:g} s")
        reached = max(reached, span.end)
    return wrong
