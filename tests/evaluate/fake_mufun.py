"""Stands for a MuFun in a benchmark's run: an oracle, one that always says B, a mute one."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from mufun_jax.audio.waveform import load_waveform
from mufun_jax.errors import UserError
from mufun_jax.evaluate.asking.asker import Asker
from mufun_jax.evaluate.asking.choices import parse_choices
from mufun_jax.evaluate.benchmark_run import PlannedRun, RunOptions, ask_run, open_results, plan_run, waiting
from mufun_jax.evaluate.benchmarks.mucue import PROMPT
from mufun_jax.evaluate.benchmarks.registry import read_benchmark
from mufun_jax.generate.answer import Answer, OptionScore
from mufun_jax.generate.prompt import Heard

Kind = Literal["oracle", "always_b", "mute"]


class FakeMuFun:
    """`answers` has the text of the right option of each question, by the text before its options.

    Songs are really read. `batches` are the sizes of what was asked at once, `seconds` is how long each takes.
    """

    def __init__(self, kind: Kind, answers: Mapping[str, str], seconds: float = 0.0):
        self.kind, self.answers, self.seconds = kind, answers, seconds
        self.listener = SimpleNamespace(prompt=self._prompt)
        self.batches: list[int] = []
        self.asked: list[Any] = []

    def answer(self, questions: Sequence[Any], *, max_new_tokens: int, constraint: Any = None) -> list[Answer]:
        assert max_new_tokens == 64
        if constraint is None:
            self.batches.append(len(questions))
            self.asked += questions
            time.sleep(self.seconds)
        found = []
        for question in questions:
            place, options = self._chosen(question.prompt)
            letter = "" if place is None else "ABCD"[place]
            said = letter if constraint or place is None else f"The answer is {letter}. {options[place]}"
            found.append(Answer(said, "length" if place is None else "stop", ()))
        return found

    def score_questions(self, questions: Sequence[Any], options: Sequence[Sequence[str]]) -> list[list[OptionScore]]:
        found = []
        for question, some in zip(questions, options, strict=True):
            place, shown = self._chosen(question.prompt)
            assert tuple(some) == (*"ABCD", *shown)
            likely = () if place is None else ("ABCD"[place], shown[place])
            found.append([OptionScore(option, 0.0 if option in likely else -5.0, 2) for option in some])
        return found

    def _chosen(self, prompt: str) -> tuple[int | None, tuple[str, ...]]:
        text, options = parted(prompt)
        if self.kind == "always_b":
            return 1, options
        return (None if self.kind == "mute" else options.index(self.answers[text])), options

    def _prompt(self, question: Any) -> Any:
        heard = []
        if question.prompt.count("<audio>") != len(question.audio_files):
            raise UserError("as many <audio> as songs")
        for audio, segment in zip(question.audio_files, question.segments, strict=True):
            waveform = load_waveform(audio, name="song 1" if isinstance(audio, bytes) else None, segment=segment)
            seconds = waveform.end - waveform.start
            heard.append(Heard("song 1", waveform.file_seconds, waveform.start, round(seconds, 3), 0.25, 1))
        return SimpleNamespace(text=[0], heard=tuple(heard))


def parted(prompt: str) -> tuple[str, tuple[str, ...]]:
    """The question of a MuCUE prompt, and its options."""
    _, _, rest = prompt.partition(PROMPT)
    question, _, choices = rest.partition("? ")
    return f"{question}?", parse_choices(choices).options


def answers_of(benchmark: str, folder: Path) -> dict[str, str]:
    """What an oracle knows."""
    read = read_benchmark(benchmark, folder)
    return {q.prompt.removeprefix(PROMPT).split("? ")[0] + "?": q.options[q.answer] for q in read.questions}


def ask_all(
    folder: Path,
    out: Path,
    model: Any,
    options: RunOptions,
    planned: PlannedRun | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> PlannedRun:
    """A run as the command makes it, without its report."""
    planned = planned or plan_run(options, folder)
    header = planned.header(model="fake", model_digest="m", dtype="float32", quantize=None, judge=None)
    file = open_results(out, header)
    ask_run(waiting(planned, file), file, Asker(model, "m", "c"), progress)
    return planned


if __name__ == "__main__":  # for a test that kills it
    data, results = map(Path, sys.argv[1:])
    oracle = FakeMuFun("oracle", answers_of("mucue", data), 0.02)
    ask_all(
        data, results, oracle, RunOptions("mucue", rows=4), progress=lambda done, total, note: print(done, flush=True)
    )
