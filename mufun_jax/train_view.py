"""What one sees of a run while it trains, on standard error: on a terminal a live view, else a line now and then."""

import sys
import time
from itertools import accumulate
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from mufun_jax.train.curriculum import Callbacks, StageSummary

_SECONDS_BETWEEN_LINES = 30.0  # where standard error is no terminal
_TOLD = ("start", "damaged", "skipped", "rollback", "stalled", "profile")  # events that are printed; errors are anyway


class TrainView:
    """Shows a run from its `with` on; `callbacks` are for `train_curriculum`. Hidden, it shows nothing."""

    def __init__(self, *, hidden: bool = False):
        self._hidden = hidden
        self._console = Console(stderr=True, highlight=False, markup=False)
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=self._console, speed_estimate_period=120)
        self._of_stage = self._progress.add_task("starting", total=None)
        self._of_all = self._progress.add_task("curriculum", total=None)
        self._live = Live(console=self._console, refresh_per_second=2, redirect_stdout=sys.stdout.isatty())
        self._before: dict[str, int] = {}
        self._stage, self._saved, self._line_at = "", "", 0.0

    @property
    def callbacks(self) -> Callbacks:
        return Callbacks(
            on_plan=self._plan,
            on_step=self._step,
            on_stage=self._end_stage,
            on_event=self._event,
            on_load=lambda done, size, _: self._say_phase(f"loading the model, {done / size:.0%}"),
            on_measure=lambda stage, done, records: self._say_phase(
                f"measuring the data of {stage}, {done / max(records, 1):.0%}"
            ),
        )

    def __enter__(self) -> "TrainView":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    @property
    def _is_live(self) -> bool:
        return self._console.is_terminal and not self._hidden

    def _plan(self, steps: dict[str, int]) -> None:
        self._before = dict(zip(steps, accumulate(steps.values(), initial=0), strict=False))
        self._progress.update(self._of_all, total=sum(steps.values()), completed=0)
        self._say_phase("compiling, once")

    def _say_phase(self, phase: str) -> None:
        """What is under way before there are steps."""
        if self._is_live:
            self._progress.update(self._of_stage, description=phase)
            self._show()

    def _step(self, stage: str, step: int, steps: int, line: dict[str, Any]) -> None:
        if self._hidden:
            return
        if stage != self._stage:
            self._stage = stage
            self._progress.reset(self._of_stage, total=steps, completed=step - 1)
            number = list(self._before).index(stage) + 1
            self._progress.update(self._of_stage, description=f"{stage} ({number} of {len(self._before)})")
            if not self._progress.tasks[1].completed:  # what was done before this start took no time of it
                self._progress.reset(self._of_all, completed=line["global_step"] - 1)
        self._progress.update(self._of_stage, completed=step)
        self._progress.update(self._of_all, completed=line["global_step"])
        if self._is_live:
            self._show(*(Text(words) for words in describe(line, self._saved)))
        elif time.monotonic() - self._line_at > _SECONDS_BETWEEN_LINES or step == steps:
            self._line_at = time.monotonic()
            left = self._progress.tasks[1].time_remaining
            ends = "" if left is None else f", {_duration(left)} left in all"
            self._console.print(f"{stage} {step}/{steps}: {'; '.join(describe(line, ''))}{ends}", soft_wrap=True)

    def _end_stage(self, stage: StageSummary) -> None:
        """The line of a stage that is done, on standard output."""
        print(
            f"{stage.name:<15} {stage.steps:>5} steps   loss {stage.loss_start:6.3f} -> {stage.loss_end:6.3f}   "
            f"{stage.trainable:>11,} trainable parameters   {stage.seconds:6.1f} s",
            flush=True,
        )
        if self._is_live:
            self._say_phase("compiling, once")

    def _event(self, event: str, message: str) -> None:
        if event == "saved":
            self._saved = f"{message} at {time.strftime('%H:%M:%S')}"
        elif event in _TOLD and not self._hidden and message != "starts at the beginning":
            self._console.print(f"{event}: {message}", soft_wrap=True)

    def _show(self, *lines: Text) -> None:
        if not self._live.is_started:
            self._live.start()
        self._live.update(Group(self._progress, *lines))


def describe(line: dict[str, Any], saved: str) -> list[str]:
    """A step's line of metrics in words, a few to a line of the terminal."""
    if "loss" not in line:
        return [f"passed over: {line.get('skipped', '')}"]
    prefix = "gradient_norm_"
    norms = ", ".join(f"{key.removeprefix(prefix)} {line[key]:.3g}" for key in line if key.startswith(prefix))
    words = [
        f"loss {line['loss']:.3f}, learning rate {line['learning_rate']:.2e}, "
        f"gradient norm {line['gradient_norm']:.3g} ({norms})"
    ]
    if len(line["loss_of"]) > 1:
        words.append("loss of " + ", ".join(f"{name} {loss:.3f}" for name, loss in line["loss_of"].items()))
    if "evaluation_loss" in line:
        words.append(f"evaluation loss {line['evaluation_loss']:.3f}")
    rates = [
        f"{line['tokens_per_second']:,.0f} tokens/s",
        f"{line['audio_seconds_per_second']:,.0f} s of audio a second",
        f"MFU {line['mfu']:.1%}" if "mfu" in line else "",
        f"{line['memory_gib']:.1f} GiB",
        f"data wait {min(1.0, line['data_wait_seconds'] / line['seconds']):.0%}",
        f"goodput {line['goodput']:.0%}",
        saved,
    ]
    return [*words, ", ".join(rate for rate in rates if rate)]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
