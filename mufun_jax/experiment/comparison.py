"""Arms beside one another: accuracy by task with mean and spread over seeds, and differences of the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mufun_jax.evaluate.statistics import Difference, paired_difference
from mufun_jax.experiment.outcome import Line, ResultFigure, ResultTable
from mufun_jax.experiment.trained_arms import ArmRun
from mufun_jax.report.curves import smooth, thin, usual_span

_POINTS = 400  # of a curve


@dataclass(frozen=True)
class Comparison:
    """Arms with the same seeds. The first is the one that others are compared with."""

    arms: tuple[str, ...]
    runs: tuple[ArmRun, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task for run in self.runs for task in run.scores))

    def accuracies(self, arm: str, task: str) -> list[float | None]:
        """By seed; None where training was stopped."""
        by_seed = {run.seed: run.scores.get(task) for run in self.runs if run.arm == arm}
        return [None if (score := by_seed[seed]) is None else float(score["accuracy"]) for seed in self.seeds]

    def difference(self, arm: str, task: str) -> Difference | None:
        """Of an arm less the first one, over the seeds that both have: mean, and Student's interval over seeds."""
        both = zip(self.seeds, self.accuracies(arm, task), self.accuracies(self.arms[0], task), strict=True)
        pairs = [(str(seed), one - other) for seed, one, other in both if one is not None and other is not None]
        if not pairs:
            return None
        return paired_difference([change for _, change in pairs], [seed for seed, _ in pairs])


def mean_and_spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The mean, and the sample standard deviation; None where there are too few values."""
    numbers = [value for value in values if value is not None]
    mean = float(np.mean(numbers)) if numbers else None
    return mean, float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None


def answer(comparison: Comparison) -> str:
    """Which tasks an arm is surely better or worse at, and of which nothing can be said."""
    if len(comparison.arms) < 2:
        return f"Only {', '.join(comparison.arms)} was run: there is nothing to compare it with."
    if len(comparison.seeds) < 2:
        return "One seed: the difference may be chance. Run it with --seeds 3 or more."
    said = []
    for arm in comparison.arms[1:]:
        better, worse, open_ = [], [], []
        for task in comparison.tasks:
            found = comparison.difference(arm, task)
            low, high = (found.interval if found else None) or (-1.0, 1.0)
            (better if low > 0 else worse if high < 0 else open_).append(task)
        parts = [("better", better), ("worse", worse), ("not told apart", open_)]
        words = "; ".join(f"{word} at {', '.join(tasks)}" for word, tasks in parts if tasks)
        said.append(f"{arm} against {comparison.arms[0]}, over {len(comparison.seeds)} seeds: {words or 'no task'}.")
    return " ".join(said)


def score_tables(comparison: Comparison) -> list[ResultTable]:
    """Accuracy of every arm and seed; and paired differences from the first arm."""
    seeds = comparison.seeds
    columns = ("task", "arm", *(f"seed {seed}" for seed in seeds), "mean", "spread", "commonest answer")
    rows, differences = [], []
    for task in comparison.tasks:
        majority = next(float(run.scores[task]["majority"]) for run in comparison.runs if task in run.scores)
        for arm in comparison.arms:
            accuracies = comparison.accuracies(arm, task)
            rows.append((task, arm, *accuracies, *mean_and_spread(accuracies), majority))
        for arm in comparison.arms[1:]:
            found = comparison.difference(arm, task)
            if found is not None:
                low, high = found.interval or (None, None)
                differences.append((task, arm, found.mean, low, high))
    note = "spread is the standard deviation over seeds; commonest answer is what the best constant reply scores"
    tables = [ResultTable("Accuracy", columns, tuple(rows), note, decimals=3)]
    if differences:
        note = f"less {comparison.arms[0]} with the same seed; the 95 % interval is Student's, over seeds"
        heads = ("task", "arm", "difference", "from", "to")
        tables.append(ResultTable("Paired differences of accuracy", heads, tuple(differences), note, decimals=3))
    return tables


def run_table(comparison: Comparison, budgets: Mapping[str, int]) -> ResultTable:
    """What each arm was given, and what training came to."""
    rows = []
    for arm in comparison.arms:
        runs = [run for run in comparison.runs if run.arm == arm]
        losses = [_last_loss(run) for run in runs]
        stopped = next((run.stopped for run in runs if run.stopped), "")
        seconds = mean_and_spread([run.seconds for run in runs])[0]
        steps = max(len(run.steps) for run in runs)
        rows.append((arm, steps, budgets[arm], runs[0].parameters, mean_and_spread(losses)[0], seconds, stopped))
    columns = ("arm", "steps", "positions", "parameters", "loss at the end", "s of steps", "stopped")
    note = "positions are steps x rows x positions of a row; the loss is the mean of the last twentieth of all steps"
    return ResultTable("Training", columns, tuple(rows), note, decimals=3)


def score_figure(comparison: Comparison) -> ResultFigure:
    """Bars of accuracy by task, with the spread over seeds."""
    lines = []
    for arm in comparison.arms:
        found = [mean_and_spread(comparison.accuracies(arm, task)) for task in comparison.tasks]
        means, spreads = (tuple(column) for column in zip(*found, strict=True)) if found else ((), ())
        lines.append(Line(arm, comparison.tasks, means, spreads if any(spreads) else ()))
    note = "mean over seeds; the bars' marks are one standard deviation"
    return ResultFigure("Accuracy by task", "bars", "", "accuracy", tuple(lines), note)


def loss_figure(runs: Sequence[ArmRun]) -> ResultFigure:
    """The smoothed loss of every arm and seed."""
    several = len({run.seed for run in runs}) > 1
    lines = []
    for run in runs:
        losses = np.array([step["loss"] for step in run.steps], np.float64)
        if len(losses):
            places = thin(smooth(losses, usual_span(len(losses))), _POINTS)
            smoothed = smooth(losses, usual_span(len(losses)))[places]
            at = tuple(int(run.steps[place]["global_step"]) for place in places)
            lines.append(Line(f"{run.arm}, seed {run.seed}" if several else run.arm, at, tuple(smoothed.tolist())))
    return ResultFigure("Loss", "lines", "step", "nats a target token", tuple(lines), "smoothed")


def _last_loss(run: ArmRun) -> float | None:
    losses = [float(step["loss"]) for step in run.steps]
    return float(np.mean(losses[-max(1, len(losses) // 20) :])) if losses else None
