"""Chords in time: mir_eval's weighted scores."""

import re
from collections.abc import Sequence
from functools import partial

import mir_eval.chord
import mir_eval.util
import numpy as np

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics.measured import Measured, fraction
from mufun_jax.evaluate.metrics.timed_list import Timed, overlaps, read_timed

_COMPARISONS = {
    "majmin": mir_eval.chord.majmin,
    "root": mir_eval.chord.root,
    "sevenths": mir_eval.chord.sevenths,
}
_NO_CHORD, _UNKNOWN = "N", "X"
_SPELT_NO_CHORD = {"n", "nc", "n.c", "n.c.", "no chord", "silence"}
# How chord books write Harte's shorthands. Small letters but for M, which alone is major.
_QUALITIES = {
    **dict.fromkeys(("", "M", "maj", "major"), "maj"),
    **dict.fromkeys(("m", "min", "minor", "-"), "min"),
    **dict.fromkeys(("7", "dom7"), "7"),
    **dict.fromkeys(("m7", "min7", "-7"), "min7"),
    **dict.fromkeys(("M7", "maj7", "major7", "Δ", "Δ7"), "maj7"),
    **dict.fromkeys(("mM7", "minmaj7", "mmaj7"), "minmaj7"),
    **dict.fromkeys(("dim", "°", "o"), "dim"),
    **dict.fromkeys(("dim7", "°7", "o7"), "dim7"),
    **dict.fromkeys(("m7b5", "min7b5", "hdim7", "ø", "ø7"), "hdim7"),
    **dict.fromkeys(("aug", "+"), "aug"),
    **dict.fromkeys(("6", "M6", "maj6"), "maj6"),
    **dict.fromkeys(("m6", "min6"), "min6"),
    **{quality: quality for quality in ("sus2", "sus4", "9", "maj9", "min9", "11", "13")},
    "sus": "sus4",
    "m9": "min9",
    "M9": "maj9",
}
_CHORD = re.compile(r"([A-G])([#♯b♭]*)\s*:?\s*([^/]*?)\s*(?:/\S+)?")


def read_chord(label: str) -> str | None:
    """A chord in Harte's syntax, without its bass (no score here looks at it); None for what is none.

    Harte's own ("A:min7/b3") and what chord books write ("Am7", "F#m7b5", "G/B"); "N" and "N.C." are no chord, "X" is
    an unknown one, which is not compared where a reference has it.
    """
    label = label.strip()
    if label.lower() in _SPELT_NO_CHORD:
        return _NO_CHORD
    if label == _UNKNOWN:
        return _UNKNOWN
    found = _CHORD.fullmatch(label)
    if found is None or label[:1] not in "ABCDEFG" or len(found[2]) > 2:
        return None
    root = found[1] + found[2].replace("♯", "#").replace("♭", "b")
    written = found[3] if found[3] in _QUALITIES else found[3].lower()
    spelt = f"{root}:{_QUALITIES.get(written, found[3])}"
    try:
        mir_eval.chord.encode(spelt)
    except mir_eval.chord.InvalidChordException:
        return None
    return spelt


def check_chords(reference: str) -> str | None:
    """What is wrong with a reference, or None."""
    chords = read_timed(reference)
    if chords is None or overlaps(chords):
        return "is no list of chords with their times, such as '0.0-2.5 C; 2.5-4.0 Am'"
    if chords[-1].end is None:
        return "does not say when the last chord ends"
    wrong = next((chord.label for chord in chords if read_chord(chord.label) is None), None)
    return f"{wrong!r} is no chord; write for instance Am7 or A:min7" if wrong is not None else None


def measure_chords(replies: Sequence[str], references: Sequence[str]) -> Measured:
    """`majmin`, `root` and `sevenths`: the share of the time in which mir_eval compares chords so, in all references
    together, that has the right one (MIREX's chord symbol recall, weighted by length). `majmin` is the main figure.

    Where a list says nothing, before, between or after its chords, it says that there is no chord. What a reply says
    of the time outside its reference is not compared. An unreadable reply, or one whose chords overlap, is wrong from
    end to end and counted; a label that is no chord (`unreadable_chords`) is wrong while it lasts.

    Every reference is one that `check_chords` finds nothing wrong with. A figure is left out where nothing is compared
    so. Raises UserError where that is the main one.
    """
    sums = np.zeros((len(replies), 2 * len(_COMPARISONS)))
    unreadable = bad_labels = 0
    for row, reply, reference in zip(sums, replies, references, strict=True):
        right = read_timed(reference)
        assert right is not None and right[-1].end is not None
        span = (right[0].start, right[-1].end)
        said = read_timed(reply)
        if said is None or overlaps(said):
            unreadable += 1
            said = [Timed(*span, _UNKNOWN)]
        else:
            bad_labels += sum(read_chord(chord.label) is None for chord in said)
        row[:] = _compared(_filled(right, span), _filled(said, span))
    total = sums.sum(axis=0)
    if not total[1]:
        raise UserError("no reference holds a major or minor chord, or says that there is none: nothing to compare")
    figures = {name: fraction(total, 2 * at, 2 * at + 1) for at, name in enumerate(_COMPARISONS) if total[2 * at + 1]}
    figures |= {"unreadable": float(unreadable), "unreadable_chords": float(bad_labels)}
    return Measured(figures, sums, partial(fraction, top=0, bottom=1))


def _filled(chords: list[Timed], span: tuple[float, float]) -> tuple[np.ndarray, list[str]]:
    """Intervals [n, 2] and Harte's labels that cover the span without a gap."""
    start, end = span
    intervals, labels, until = [], [], start
    for chord in chords:
        chord_start, chord_end = max(chord.start, start), min(end if chord.end is None else chord.end, end)
        if chord_start >= chord_end:
            continue
        if chord_start > until:
            intervals.append((until, chord_start))
            labels.append(_NO_CHORD)
        intervals.append((chord_start, chord_end))
        labels.append(read_chord(chord.label) or _UNKNOWN)
        until = chord_end
    if until < end:
        intervals.append((until, end))
        labels.append(_NO_CHORD)
    return np.array(intervals), labels


def _compared(right: tuple[np.ndarray, list[str]], said: tuple[np.ndarray, list[str]]) -> list[float]:
    """For each comparison the seconds that are right, and those that are compared (mir_eval's -1 is neither)."""
    intervals, right_labels, said_labels = mir_eval.util.merge_labeled_intervals(*right, *said)
    seconds = mir_eval.util.intervals_to_durations(intervals)
    sums: list[float] = []
    for compare in _COMPARISONS.values():
        found = np.asarray(compare(right_labels, said_labels))
        is_compared = found >= 0
        sums += [float(seconds[is_compared] @ found[is_compared]), float(seconds[is_compared].sum())]
    return sums
