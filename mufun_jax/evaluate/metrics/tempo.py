"""Tempo in beats a minute: accuracy 1 and 2."""

import re
from collections.abc import Sequence

from mufun_jax.evaluate.metrics.measured import Measured, mean_of

TOLERANCE = 0.04
FACTORS = (1.0, 2.0, 3.0, 1 / 2, 1 / 3)

_ROUNDING = 1e-9  # so that 124.8 is within 4 % of 120
_UNIT = r"(?:bpm|beats?\s*(?:per|a|/)\s*min(?:ute)?)"
# A number with all that is written onto it: 120, 120.5, but also 4/4, 1:20 and 120,5, which are none.
_RUN = re.compile(rf"(?<![\w.,:/])(?:\d[\d.,:/]*\d|\d)(?=\s*(?P<unit>{_UNIT})\b)?(?![\d])", re.IGNORECASE)
_NUMBER = re.compile(r"\d{1,4}(?:\.\d+)?")
_NEAR = 40  # characters before a number in which it may turn out the end of a range
_NEITHER = re.compile(r"\d+[:/]\d+")  # a clock or a time signature, which is no second tempo
_RANGE = re.compile(rf"\d\s*{_UNIT}?\s*(?:-|–|—|~|\.\.+|…|to|and|or)\s*$", re.IGNORECASE)


def read_tempo(text: str) -> float | None:
    """The one tempo that a text names, above 0; None where it names none, several, or a range.

    A number with its unit ("about 120.5 BPM", "120 beats per minute in 4/4") is it; without any unit, the only number
    of the text is. "110-120 BPM", "120 or 60", "120,5" and numbers in words are not read.
    """
    runs = list(_RUN.finditer(text))
    chosen = [run for run in runs if run["unit"]] or [run for run in runs if not _NEITHER.fullmatch(run[0])]
    if not all(_NUMBER.fullmatch(run[0]) for run in chosen):
        return None
    if any(_RANGE.search(text[max(0, run.start() - _NEAR) : run.start()]) for run in chosen):
        return None
    found = {float(run[0]) for run in chosen}
    return found.pop() if len(found) == 1 and min(found) > 0 else None


def measure_tempo(replies: Sequence[str], references: Sequence[str]) -> Measured:
    """`accuracy_1`: within 4 % of the reference; `accuracy_2`: or of twice, three times, half or a third of it
    (Gouyon et al. 2006). Shares of all replies; an unreadable one is wrong and counted. Accuracy 1 is the main figure.

    Every reference is one that `read_tempo` reads.
    """
    first, second, unreadable = [], [], 0
    for reply, reference in zip(replies, references, strict=True):
        tempo, right = read_tempo(reply), read_tempo(reference)
        assert right is not None
        unreadable += tempo is None
        first.append(float(tempo is not None and _is_near(tempo, right)))
        second.append(float(tempo is not None and any(_is_near(tempo, factor * right) for factor in FACTORS)))
    figures = {
        "accuracy_1": sum(first) / len(first),
        "accuracy_2": sum(second) / len(second),
        "unreadable": float(unreadable),
    }
    return mean_of(first, figures)


def _is_near(tempo: float, right: float) -> bool:
    return abs(tempo - right) <= TOLERANCE * right * (1 + _ROUNDING)
