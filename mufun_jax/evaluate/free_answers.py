"""Runs an evaluation of tasks whose answers are measured: lyrics, keys, tempos, chords, sections, captions."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.metrics.measured import Measured, bootstrap_interval
from mufun_jax.evaluate.metrics.registry import ChosenMetric, check_references, find_metric
from mufun_jax.evaluate.run import greedy_answers, other_songs, with_audio, without_audio
from mufun_jax.evaluate.tasks import Item
from mufun_jax.generate.chat import MuFun

_CONDITIONS = ("audio", "no_audio", "wrong_audio")


@dataclass(frozen=True)
class MetricScore:
    """A metric of one task on n questions.

    `score` is the metric's main figure, `headline` its name, `interval` its 95 % interval (of `bootstrap_interval`).
    `constant`, `no_audio` and `wrong_audio` are the same figure of always giving the commonest answer, of the model
    asked without the song, and with another song. `figures` holds all figures under the conditions audio, no_audio and
    wrong_audio, and `cut_short`: how many answers there the limit of tokens ended.
    """

    metric: str
    headline: str
    lower_is_better: bool
    n: int
    score: float
    interval: tuple[float, float]
    constant: float
    no_audio: float
    wrong_audio: float
    figures: dict[str, dict[str, float]]

    @property
    def is_heard(self) -> bool:
        """Whether the whole interval is better than all three baselines."""
        baselines = (self.constant, self.no_audio, self.wrong_audio)
        return self.interval[1] < min(baselines) if self.lower_is_better else self.interval[0] > max(baselines)


def read_metrics(options: Sequence[str], items: Mapping[str, list[Item]]) -> dict[str, ChosenMetric]:
    """Which metric each task has, from `TASK=METRIC` each; the answers of the tasks are checked.

    Raises:
        UserError: an option of another form, a task that is not among the items or that has two metrics, what
            `find_metric` raises, or an answer that the metric cannot score against.
    """
    chosen: dict[str, ChosenMetric] = {}
    for option in options:
        task, _, spelt = option.partition("=")
        if not task or not spelt:
            raise UserError(f"--metric {option}: write TASK=METRIC, for instance key=key or lyrics=lyrics:de")
        if task not in items:
            raise UserError(
                f"--metric {option}: no task {task!r}{nearest(task, list(items))}; there are {', '.join(sorted(items))}"
            )
        if task in chosen:
            raise UserError(f"--metric {option}: task {task!r} has the metric {chosen[task].spelt} already")
        chosen[task] = find_metric(spelt)
        answers = [item.answer for item in items[task]]
        check_references(chosen[task], answers, [item.example.id for item in items[task]])
    return chosen


def measure_tasks(
    model: MuFun,
    items: Mapping[str, list[Item]],
    metrics: Mapping[str, ChosenMetric],
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, MetricScore]:
    """Scores the tasks that have a metric. `progress` gets the number of questions answered and of all."""
    sizes = [len(_CONDITIONS) * len(items[task]) for task in metrics]
    before = [0, *accumulate(sizes)]
    return {
        task: _measure(model, items[task], chosen, lambda done, start=start: progress(start + done, before[-1]))
        for (task, chosen), start in zip(metrics.items(), before, strict=False)
    }


def _measure(model: MuFun, items: list[Item], chosen: ChosenMetric, progress: Callable[[int], None]) -> MetricScore:
    others = other_songs(items)
    questions = {
        "audio": [with_audio(item, item) for item in items],
        "no_audio": [without_audio(item) for item in items],
        "wrong_audio": [with_audio(item, other) for item, other in zip(items, others, strict=True)],
    }
    references = [item.answer for item in items]
    measured: dict[str, Measured] = {}
    figures: dict[str, dict[str, float]] = {}
    for condition in _CONDITIONS:
        start = len(measured) * len(items)
        answers = greedy_answers(
            model, questions[condition], chosen.metric.max_new_tokens, lambda done, start=start: progress(start + done)
        )
        measured[condition] = chosen.measure([answer.text for answer in answers], references)
        cut_short = sum(answer.finish == "length" for answer in answers)
        figures[condition] = measured[condition].figures | {"cut_short": float(cut_short)}
    commonest = Counter(references).most_common(1)[0][0]
    headline = chosen.metric.headline
    return MetricScore(
        metric=chosen.spelt,
        headline=headline,
        lower_is_better=chosen.metric.lower_is_better,
        n=len(items),
        score=figures["audio"][headline],
        interval=bootstrap_interval(measured["audio"], [item.example.audio for item in items]),
        constant=chosen.measure([commonest] * len(items), references).figures[headline],
        no_audio=figures["no_audio"][headline],
        wrong_audio=figures["wrong_audio"][headline],
        figures=figures,
    )
