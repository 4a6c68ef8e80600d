"""The metrics of free answers by name, and what each needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.metrics.measured import Measured

_LIBRARIES = ("mir_eval", "jiwer", "alt_eval", "sacrebleu")  # of the extra `metrics`
_SHOWN = 80  # characters of a reference in an error's line

Measure = Callable[[Sequence[str], Sequence[str]], Measured]
Check = Callable[[str], str | None]  # what is wrong with a reference, or None


@dataclass(frozen=True)
class Metric:
    """How a task's free answers are measured.

    `make` gives the measure and the check of a reference, for the argument that may follow the name ("lyrics:de"), ""
    for none; `argument` says what that is. `headline` is the main figure. An answer has at most `max_new_tokens`.
    """

    name: str
    headline: str
    lower_is_better: bool
    max_new_tokens: int
    make: Callable[[str], tuple[Measure, Check]]
    argument: str = ""


@dataclass(frozen=True)
class ChosenMetric:
    """A metric with its argument. `spelt` is as the user wrote it."""

    spelt: str
    metric: Metric
    measure: Measure
    check: Check


def find_metric(spelt: str) -> ChosenMetric:
    """The metric of a name, with what may follow it: `tempo`, `lyrics:de`, `captions:FOLDER`.

    Raises:
        UserError: an unknown name, an argument that the metric does not take, or a library that is missing.
    """
    name, _, argument = spelt.partition(":")
    if name not in METRICS:
        raise UserError(f"no metric {name!r}{nearest(name, list(METRICS))}; there are {', '.join(METRICS)}")
    metric = METRICS[name]
    if ":" in spelt and not (metric.argument and argument):
        takes = f"write {name}:{metric.argument}" if metric.argument else "it takes nothing after its name"
        raise UserError(f"metric {spelt!r}: {takes}")
    for library in _LIBRARIES:
        if find_spec(library) is None:
            raise UserError(f"metrics need {library}, which is not installed: pip install 'mufun_jax[metrics]'")
    return ChosenMetric(spelt, metric, *metric.make(argument))


def check_references(chosen: ChosenMetric, references: Sequence[str], names: Sequence[str]) -> None:
    """Raises UserError for the first reference that the metric cannot score against. `names` say where each stands."""
    for name, reference in zip(names, references, strict=True):
        wrong = chosen.check(reference)
        if wrong is not None:
            raise UserError(f"{name}, metric {chosen.spelt}: the answer {reference[:_SHOWN]!r} {wrong}")


def score_task(metric_name: str, replies: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """The figures of a metric on a task's replies, their number `n`, and how many were `unreadable`.

    Raises:
        UserError: as `find_metric`; not one reply a reference, or none at all; or a reference that cannot be scored
            against.
    """
    chosen = find_metric(metric_name)
    if len(replies) != len(references) or not replies:
        raise UserError(
            f"{len(replies)} replies for {len(references)} references: give one reply for each, at least one"
        )
    check_references(chosen, references, [f"reference {number}" for number in range(1, len(references) + 1)])
    return {"n": float(len(replies))} | chosen.measure(replies, references).figures


def _any(reference: str) -> str | None:
    return None if reference.strip() else "is empty"


def _lyrics(language: str) -> tuple[Measure, Check]:
    from mufun_jax.evaluate.metrics.lyrics import check_language, measure_lyrics

    language = language or "en"
    check_language(language)
    return lambda replies, references: measure_lyrics(replies, references, language), lambda reference: None


def _key(_: str) -> tuple[Measure, Check]:
    from mufun_jax.evaluate.metrics.key import measure_keys, read_key

    wrong = "is no major or minor key; write for instance F# minor"
    return measure_keys, lambda reference: wrong if read_key(reference) is None else None


def _tempo(_: str) -> tuple[Measure, Check]:
    from mufun_jax.evaluate.metrics.tempo import measure_tempo, read_tempo

    wrong = "is no tempo in beats a minute; write for instance 120"
    return measure_tempo, lambda reference: wrong if read_tempo(reference) is None else None


def _chords(_: str) -> tuple[Measure, Check]:
    from mufun_jax.evaluate.metrics.chords import check_chords, measure_chords

    return measure_chords, check_chords


def _segments(_: str) -> tuple[Measure, Check]:
    from mufun_jax.evaluate.metrics.segments import check_sections, measure_segments

    return measure_segments, check_sections


def _captions(folder: str) -> tuple[Measure, Check]:
    from mufun_jax.evaluate.metrics.captions import load_embed, measure_captions

    embed = load_embed(Path(folder)) if folder else None
    return lambda replies, references: measure_captions(replies, references, embed), _any


METRICS = {
    metric.name: metric
    for metric in (
        Metric("lyrics", "wer", True, 1024, _lyrics, "LANGUAGE, for instance lyrics:de"),
        Metric("key", "weighted", False, 64, _key),
        Metric("tempo", "accuracy_1", False, 64, _tempo),
        Metric("chords", "majmin", False, 1024, _chords),
        Metric("segments", "f_3", False, 512, _segments),
        Metric("captions", "bleu", False, 256, _captions, "FOLDER of a sentence-transformers model"),
    )
}
