"""The two ways in which models fail that the paper names, looked for in the results of a run.

Acoustic blindness: the model answers from words. It does well on lyrics, and no better on pitch and instrument than
without the audio. Hallucinated structure: it tells of sections that the song cannot have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mufun_jax.evaluate.benchmark_scores.scores import PooledScore, Scores
from mufun_jax.evaluate.benchmark_scores.time_spans import impossible, time_spans
from mufun_jax.evaluate.result import Result
from mufun_jax.evaluate.statistics import accuracy_of

Verdict = Literal["seen", "not seen", "undecided", "not assessed"]

WELL_ABOVE = 0.10  # of accuracy: what lyrics must be above their baseline, and what pitch may seem above its own
RARE = 0.01  # of replies: so few impossible sections may be slips of the pen
TOLERANCE = 1.0  # seconds past the end, or of overlap, that are no error
_WORDS, _SOUND, _STRUCTURE = "lyrics", ("pitch", "instrument"), "structure"
_SHOWN = 3  # impossible replies


@dataclass(frozen=True)
class Signature:
    """`reason` says the figures. `examples` are of impossible sections, as (question's id, what is wrong)."""

    name: str
    verdict: Verdict
    reason: str
    examples: tuple[tuple[str, str], ...] = ()


def signatures(scores: Scores, results: Sequence[Result]) -> tuple[Signature, ...]:
    return acoustic_blindness(scores), hallucinated_structure(results)


def acoustic_blindness(scores: Scores) -> Signature:
    """Seen where lyrics are well above their baseline and pitch and instrument lie at theirs.

    All by the generated answers, on plain means over each group's sets, with intervals clustered by song. The baseline
    of a group is its accuracy without audio, or, if that was not run, the best single letter's. A group lies well above
    where its interval begins at least 0.10 above its baseline; above where it begins above the end of the baseline's
    own interval; and else at its baseline where it ends at most 0.10 above it. An interval too wide for either leaves
    the matter undecided.
    """
    name, groups = "acoustic blindness", {group.name: group for group in scores.groups if group.average}
    missing = [group for group in (_WORDS, *_SOUND) if group not in groups]
    if missing:
        return Signature(name, "not assessed", f"the run has no questions of {' and '.join(missing)}")
    words = groups[_WORDS]
    said = "; ".join(_said(groups[group]) for group in (_WORDS, *_SOUND))
    sound = [_place(groups[group]) for group in _SOUND]
    if words.average["generated"].clustered[1] < _baseline(words)[0] + WELL_ABOVE or "above" in sound:
        return Signature(name, "not seen", said)
    above = words.average["generated"].clustered[0] >= _baseline(words)[0] + WELL_ABOVE
    return Signature(name, "seen" if above and sound == ["at", "at"] else "undecided", said)


def hallucinated_structure(results: Sequence[Result]) -> Signature:
    """Seen where replies to questions of structure tell of sections past the end of what was heard, or overlapping.

    Times count from where what was heard begins: in a question on a part of a song, from the part's start.
    Sections that stand in the question itself are not the model's, and do not count. Seen where the 95 % interval of
    the share of such replies, among those that tell of any section, begins above 0.01; undecided where there are some
    but the interval begins lower.
    """
    name, wrong, told, songs = "hallucinated structure", [], [], []
    asked = [
        result for result in results if result.group == _STRUCTURE and result.condition == "audio" and result.reply
    ]
    for result in asked:
        given = set(time_spans(result.prompt))
        spans = [span for span in time_spans(result.reply or "") if span not in given]
        if spans:
            faults = impossible(spans, result.seconds_used + result.seconds_dropped, TOLERANCE)
            wrong += [(result.id, faults[0])] if faults else []
            told.append(float(bool(faults)))
            songs.append(result.song)
    share = accuracy_of(told, songs)
    if share is None:
        reason = f"none of {len(asked)} replies to questions of structure tells of a section of its own"
        return Signature(name, "not assessed", reason)
    low, high = share.wilson
    reason = (
        f"{len(wrong)} of {share.n} replies that tell of sections have some past the end of the song or overlapping "
        f"({100 * share.accuracy:.1f} %, {100 * low:.1f} to {100 * high:.1f} %)"
    )
    verdict: Verdict = "not seen" if not wrong else "seen" if low > RARE else "undecided"
    return Signature(name, verdict, reason, tuple(wrong[:_SHOWN]))


def _baseline(group: PooledScore) -> tuple[float, float, str]:
    """The accuracy, the end of its interval, and what it is of."""
    silent = group.baselines.get("text_only", {})
    if "generated" in silent:
        return silent["generated"].accuracy, silent["generated"].clustered[1], "without audio"
    assert group.majority is not None
    return group.majority, group.majority, "the best single letter"


def _place(group: PooledScore) -> Literal["above", "at", "unclear"]:
    (low, high), (baseline, end, _) = group.average["generated"].clustered, _baseline(group)
    if low > end:
        return "above"
    return "at" if high <= baseline + WELL_ABOVE else "unclear"


def _said(group: PooledScore) -> str:
    found, (baseline, _, what) = group.average["generated"], _baseline(group)
    low, high = found.clustered
    return (
        f"{group.name} {100 * found.accuracy:.1f} % ({100 * low:.1f} to {100 * high:.1f}), "
        f"{what} {100 * baseline:.1f} %"
    )
