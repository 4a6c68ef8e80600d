"""Lettered options: read out of a text, and laid out as one."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from mufun_jax.evaluate.benchmark_question import LETTERS, BenchmarkQuestion, OptionLayout

OPTIONS_PLACE = "{options}"  # where the lettered options stand in a question's prompt

_OPTIONS = 4
# A letter from A to E (the fifth only to be refused) that a delimiter follows; a bracket may open before it.
_MARKER = re.compile(r"(?<![^\s,;(（])(?P<open>[(（]?)(?P<letter>[A-Ea-eＡ-Ｅ])(?P<delimiter>[.):．）：、])")
_FULL_WIDTH = {ord("Ａ") + place: ord("A") + place for place in range(26)}


@dataclass(frozen=True)
class Choices:
    """The texts of the options, without letters, and how they were laid out (the default, where it was no one way)."""

    options: tuple[str, ...]
    layout: OptionLayout


@dataclass(frozen=True)
class _Marker:
    start: int
    letter_end: int
    end: int
    letter: str
    style: tuple[str, str, bool]  # the bracket before, the delimiter after, a small letter
    begins_line: bool


def parse_choices(text: str) -> Choices:
    """Four options from a text such as `"A. metal \\nB. disco \\nC. classical \\nD. country"`.

    Options begin with the letters A to D, each followed by `.`, `)` or `:`, in one style throughout; they are split at
    those that begin a line, or, where that gives none, at any between two words. Where the same letters can be read in
    two ways ("A. vitamin B. mix B. …" in one line), the text is refused: a wrong split would put a wrong text behind
    the letter.

    Raises:
        ValueError: the text does not give four options in just one way.
    """
    markers = [_marker(text, found) for found in _MARKER.finditer(text)]
    readings: list[list[_Marker]] = []
    for lines_only in (True, False):
        eligible = [marker for marker in markers if marker.begins_line or not lines_only]
        for _, group in groupby(sorted(eligible, key=lambda m: m.style), key=lambda m: m.style):
            readings += _ways(text, sorted(group, key=lambda m: m.start))
        if readings:
            break
    if len(readings) != 1:
        found = "no" if not readings else "more than one way to read"
        raise ValueError(f"{found} four options lettered A to D in {text[:200]!r}")
    return _split(text, readings[0])


def lettered(options: Sequence[str], layout: OptionLayout | None = None) -> str:
    """The options with their letters, by default as MuCUE lays them out: `"A. metal \\nB. disco"`."""
    layout = OptionLayout() if layout is None else layout
    assert len(options) <= len(LETTERS)
    if not layout.letters:
        return layout.between.join(options)
    shown = (f"{layout.before}{letter}{layout.after}{option}" for letter, option in zip(LETTERS, options, strict=False))
    return layout.between.join(shown)


def prompt_of(question: BenchmarkQuestion, order: Sequence[int]) -> str:
    """The user's turn with the options in an order: `order[i]` is the place of the option shown under letter i.

    In the benchmark's own order the options stand as the benchmark has them, to the letter.
    """
    assert sorted(order) == list(range(len(question.options)))
    if question.options_text is not None and list(order) == list(range(len(order))):
        options = question.options_text
    else:
        options = lettered([question.options[place] for place in order], question.layout)
    before, place, after = question.prompt.partition(OPTIONS_PLACE)
    assert place, "the prompt has no place for the options"
    return before + options + after


def _marker(text: str, found: re.Match[str]) -> _Marker:
    letter = found["letter"].translate(_FULL_WIDTH)
    return _Marker(
        start=found.start(),
        letter_end=found.start("delimiter"),
        end=found.end(),
        letter=letter.upper(),
        style=(found["open"], found["delimiter"], letter.islower()),
        begins_line=not text[: found.start()].rpartition("\n")[2].strip(),
    )


def _ways(text: str, markers: list[_Marker]) -> list[list[_Marker]]:
    """Every way to take A, B, C and D in this order from markers of one style, with a text after each.

    The first begins the text. A fifth letter after them makes five options, which is none of the ways.
    """
    if not markers or markers[0].letter != "A" or text[: markers[0].start].strip():
        return []
    ways: list[list[_Marker]] = [markers[:1]]
    for letter in LETTERS[1:_OPTIONS]:
        ways = [
            [*way, marker]
            for way in ways
            for marker in markers
            if marker.letter == letter and text[way[-1].end : marker.start].strip()
        ][:100]  # more than one is refused: their number does not matter
    return [
        way
        for way in ways
        if text[way[-1].end :].strip() and not any(m.letter == "E" and m.start > way[-1].start for m in markers)
    ]


def _split(text: str, markers: list[_Marker]) -> Choices:
    ends = [*(marker.start for marker in markers[1:]), len(text)]
    spans = [text[marker.end : end] for marker, end in zip(markers, ends, strict=True)]
    options = tuple(span.strip() for span in spans)
    befores = {text[marker.start : marker.letter_end - 1] for marker in markers}
    afters = {
        text[marker.letter_end : marker.end] + span[: len(span) - len(span.lstrip())]
        for marker, span in zip(markers, spans, strict=True)
    }
    betweens = {span[len(span.rstrip()) :] for span in spans[:-1]}
    if len(befores) == len(afters) == len(betweens) == 1:
        return Choices(options, OptionLayout(befores.pop(), afters.pop(), betweens.pop()))
    return Choices(options, OptionLayout())
