"""What asking a benchmark costs: questions about one song together, beside one by one without reuse.

    make bench                                  (or python -m tests.benchmarks.benchmark_speed --seconds 30 240)

Work shaped like MuCUE's: 6 questions a song, each asked in three ways (a reply, log-probabilities of letters and texts,
a choice among letters). Without reuse, each of a question's three calls decodes, encodes and prefills the song anew.
Answers must be the same. Wanted: 3 times as many questions a second. Beside it stands the ratio to a question at a time
that computes its song once for its three calls: what is gained by ordering questions by song alone.

The nano preset with random weights, hearing each song whole. Compiling is not counted; the two take turns.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as in tests/benchmarks/train.py: the threads of JAX's CPU device
    os.environ |= {"PJRT_NPROC": "2", "JAX_PLATFORMS": "cpu"}

import numpy as np
import soundfile

from mufun_jax.config import SAMPLE_RATE, ModelConfig
from mufun_jax.evaluate.asking.asker import Asker
from mufun_jax.evaluate.asking.choices import OPTIONS_PLACE
from mufun_jax.evaluate.asking.plan import Asking, plan
from mufun_jax.evaluate.asking.sound import own_sound
from mufun_jax.evaluate.benchmark_question import BenchmarkQuestion, Song
from mufun_jax.evaluate.benchmarks.mucue import PROMPT
from mufun_jax.evaluate.result import Result
from mufun_jax.generate.answer import Answer, OptionScore
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.prompt import Listener
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.model.presets import preset
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.params import init_params

SONGS, QUESTIONS = 4, 6  # of each song
LEAST = 3.0


def model_of(seconds: float) -> MuFun:
    """The nano model, which hears so many seconds whole."""
    config = preset("nano")
    config: ModelConfig = replace(config, max_windows=round(seconds / config.encoder.window_seconds))
    mesh = inference_mesh()
    params = init_params(config, mesh, 0)
    return MuFun(MuFunModel(config), params, load_tokenizer("nano"), mesh)


def rows_of(folder: Path, seconds: float, songs: int = SONGS) -> list[Asking]:
    """Questions about songs of noise and tones."""
    rows = []
    for number in range(songs):
        path = folder / f"{number}.wav"
        at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        noise = np.random.default_rng(number).standard_normal(at.size)
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * (220 + 50 * number) * at) + 0.05 * noise, SAMPLE_RATE)
        for place in range(QUESTIONS):
            question = BenchmarkQuestion(
                id=f"{number}/{place}",
                set="set",
                group="group",
                song=Song(path.name, lambda path=path: path),
                prompt=f"{PROMPT}Which genre does part {place} of it belong to? {OPTIONS_PLACE}",
                options=("metal", "disco", "classical", "country"),
                answer=place % 4,
            )
            rows.append(Asking(question, "audio", 0, own_sound(question)))
    return rows


def forget(model: MuFun) -> None:
    """Frees what is kept of songs."""
    model.engine.forget()
    model.listener = Listener(model.config, model.tokenizer, model.config.max_windows)


class Forgetful:
    """A model that keeps nothing from one call to the next."""

    def __init__(self, model: MuFun):
        self.model = model

    @property
    def listener(self) -> Listener:
        return self.model.listener

    def answer(self, *arguments: Any, **options: Any) -> list[Answer]:
        forget(self.model)
        return self.model.answer(*arguments, **options)

    def score_questions(self, *arguments: Any, **options: Any) -> list[list[OptionScore]]:
        forget(self.model)
        return self.model.score_questions(*arguments, **options)


def together(model: MuFun, rows: Sequence[Asking]) -> list[Result]:
    forget(model)
    asker = Asker(model, "m", "c")
    return [result for bundle in plan(rows) for batch in bundle for result in asker.ask(batch)]


def without_reuse(model: MuFun, rows: Sequence[Asking]) -> list[Result]:
    return [result for row in rows for result in Asker(Forgetful(model), "m", "c").ask([row])]


def one_by_one(model: MuFun, rows: Sequence[Asking]) -> list[Result]:
    """A song is kept for the three calls of a question."""
    results = []
    for row in rows:
        forget(model)
        results += Asker(model, "m", "c").ask([row])
    return results


def check_same(first: Sequence[Result], second: Sequence[Result]) -> None:
    """Asserts the same replies and choices, and log-probabilities but for their last bits."""
    other = {result.id: result for result in second}
    for result in first:
        beside = other.pop(result.id)
        assert result.error is None
        assert replace(result, log_probabilities=None) == replace(beside, log_probabilities=None), result.id
        pairs = zip(result.log_probabilities or (), beside.log_probabilities or (), strict=True)
        difference = max(max(abs(a.letter - b.letter), abs(a.text - b.text)) for a, b in pairs)
        assert difference < 1e-3, (result.id, difference)
    assert not other


def measure(seconds: float, rounds: int, songs: int = SONGS) -> tuple[float, float, float]:
    """Seconds of all questions asked without reuse, one by one, and together: medians."""
    with tempfile.TemporaryDirectory() as name:
        rows, model = rows_of(Path(name), seconds, songs), model_of(seconds)
        check_same(one_by_one(model, rows), together(model, rows))  # compiles, too
        took = []
        for _ in range(rounds):
            times = [time.perf_counter()]
            for way in (without_reuse, one_by_one, together):
                way(model, rows)
                times.append(time.perf_counter())
            took.append(np.diff(times))
    without, alone, shared = np.median(took, axis=0).tolist()
    return without, alone, shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[30.0, 240.0], help="of a song")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"{SONGS} songs, {QUESTIONS} questions each; nano, float32 (load {os.getloadavg()[0]:.1f})")
    missed = []
    for seconds in given.seconds:
        without, alone, shared = measure(seconds, given.rounds)
        count = SONGS * QUESTIONS
        print(
            f"songs of {seconds:g} s: without reuse {count / without:.2f} questions/s, together {count / shared:.2f}: "
            f"{without / shared:.2f} times as many ({alone / shared:.2f} times those of a question at a time)",
            flush=True,
        )
        if without / shared < LEAST:
            missed.append(f"songs of {seconds:g} s: {without / shared:.2f} times, wanted {LEAST:g}")
    print("\n".join(missed))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
