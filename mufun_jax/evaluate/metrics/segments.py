"""Sections of a song: hit rates of their boundaries, and how their labels group its time."""

from collections.abc import Sequence
from statistics import fmean

import mir_eval.segment
import mir_eval.util
import numpy as np

from mufun_jax.evaluate.metrics.measured import Measured, mean_of
from mufun_jax.evaluate.metrics.timed_list import Timed, overlaps, read_timed

WINDOWS = (0.5, 3.0)  # seconds
LONGEST = 1800.0  # seconds of a reference: comparing labels takes memory by the square of it

_AFTER = 10.0  # seconds that an open last section is drawn out beyond all boundaries
_FRAME = 0.1  # seconds, of the comparison of labels, in which mir_eval looks at no case; its default


def check_sections(reference: str) -> str | None:
    """What is wrong with a reference, or None."""
    sections = read_timed(reference)
    if sections is None or overlaps(sections):
        return "is no list of sections with their times, such as '0:00-0:15 intro; 0:15-0:45 verse' or '0:00 intro, …'"
    if (sections[-1].end or sections[-1].start) > LONGEST:
        return f"goes on after {LONGEST:g} s; give a part of the song"
    if len(sections) == 1:
        return "has one section: there is no boundary to find"
    return None


def measure_segments(replies: Sequence[str], references: Sequence[str]) -> Measured:
    """Means over the songs of `precision_W`, `recall_W` and `f_W` of the boundaries within W = 0.5 and 3 s
    (mir_eval.segment.detection), and of `pairwise_precision`, `pairwise_recall`, `pairwise_f` of the labels.

    Boundaries are trimmed: where a song begins and ends is no hit, since no one need listen for it. So lists are drawn
    out to 0 s and to the end of the reference, or where that is not said to beyond all boundaries, and what a reply
    says beyond the end is cut off, and counted (`past_end`). `f_3` is the main figure. Labels are compared for pairs
    of moments, in frames of 0.1 s, whether both are of one label (case aside): only in songs whose reference has labels
    and an end (`labelled` of them; without any the three are left out). A reply that is unreadable, or whose sections
    overlap (`overlapping`), has 0 everywhere; both counts, and those past the end, are of replies.

    Every reference is one that `check_sections` finds nothing wrong with.
    """
    hits: list[list[float]] = []
    pairs: list[list[float]] = []
    counts = dict.fromkeys(("unreadable", "overlapping", "past_end"), 0)
    for reply, reference in zip(replies, references, strict=True):
        right, said = read_timed(reference), read_timed(reply)
        assert right is not None
        end = right[-1].end
        counts["unreadable"] += said is None
        counts["overlapping"] += said is not None and overlaps(said)
        counts["past_end"] += said is not None and end is not None and (said[-1].end or said[-1].start) > end
        usable = None if said is None or overlaps(said) else said
        hits.append([0.0] * 3 * len(WINDOWS) if usable is None else _hits(right, usable))
        if end is not None and all(section.label for section in right):
            pairs.append([0.0] * 3 if usable is None else _pairs(right, usable, end))
    names = [f"{what}_{window:g}" for window in WINDOWS for what in ("precision", "recall", "f")]
    figures = {name: fmean(values) for name, values in zip(names, zip(*hits, strict=True), strict=True)}
    if pairs:
        of_pairs = zip(("pairwise_precision", "pairwise_recall", "pairwise_f"), zip(*pairs, strict=True), strict=True)
        figures |= {name: fmean(values) for name, values in of_pairs}
    figures |= {"labelled": float(len(pairs))} | {name: float(count) for name, count in counts.items()}
    return mean_of([song[names.index("f_3")] for song in hits], figures)


def _hits(right: list[Timed], said: list[Timed]) -> list[float]:
    """Precision, recall and F for each window."""
    end = right[-1].end
    if end is None:  # the end of the reply's list is then no boundary either
        last = max(section.start for section in (*right, *said)) + _AFTER
        said = [*said[:-1], Timed(said[-1].start, None, said[-1].label)]
    else:
        last = end
    spans = [_drawn_out(sections, last)[0] for sections in (right, said)]
    if min(map(len, spans)) < 2:  # no boundary in one of them; mir_eval warns, and gives the same
        return [0.0] * 3 * len(WINDOWS)
    return [
        float(value) for window in WINDOWS for value in mir_eval.segment.detection(*spans, window=window, trim=True)
    ]


def _pairs(right: list[Timed], said: list[Timed], end: float) -> list[float]:
    spans, labels = zip(*(_drawn_out(sections, end) for sections in (right, said)), strict=True)
    found = mir_eval.segment.pairwise(spans[0], labels[0], spans[1], labels[1], frame_size=_FRAME)
    return [float(value) for value in found]


def _drawn_out(sections: list[Timed], last: float) -> tuple[np.ndarray, list[str]]:
    """Intervals [n, 2] from 0 to `last`, gaps as sections of their own, and labels."""
    intervals, labels, until = [], [], 0.0
    for section in sections:
        if section.start >= last:
            break
        if section.start > until:
            intervals.append((until, section.start))
            labels.append("")
        until = last if section.end is None else min(section.end, last)
        intervals.append((section.start, until))
        labels.append(section.label)
    if until < last:
        intervals.append((until, last))
        labels.append("")
    return np.array(intervals), labels
