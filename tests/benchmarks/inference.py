"""What an answer costs on a CPU: with a song's prefix reused and without, beside PyTorch, and from the command line.

    make bench                                  (or python -m tests.benchmarks.inference reuse torch ask --rounds 5)

`reuse`: 20 questions on one song of 390 s. Without reuse the file is decoded and the prefix computed for each question;
with it once, which is counted. Wanted: 8 times faster. Answers must be the same. An answer without reuse of the large
model takes minutes, so there the first of the 20, which finds nothing to reuse, is taken to stand for all without.

`torch`: encoder, prefill and decoding beside `transformers`: same weights, float32, two threads. Outputs must agree to
1e-3 before anything is timed. Wanted: as fast; 1.5 times in decoding eight rows.

`ask`: from the start of `mufun ask` to its first character, all programs compiled before. Wanted: within 3 s.

Weights are random. What is compared takes turns, and ratios are of pairs in a round. Compiling is not counted.
"""

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

THREADS = 2
# As in tests/benchmarks/train.py: the threads of JAX's CPU device; PyTorch's sleep while they wait for each other.
os.environ |= {"PJRT_NPROC": str(THREADS), "JAX_PLATFORMS": "cpu", "OMP_WAIT_POLICY": "PASSIVE"}

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from rich import box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from mufun_jax.config import SAMPLE_RATE, ModelConfig  # noqa: E402
from mufun_jax.generate.answer import Answer  # noqa: E402
from mufun_jax.generate.chat import MuFun  # noqa: E402
from mufun_jax.generate.prompt import Listener  # noqa: E402
from mufun_jax.generate.question import make_question  # noqa: E402
from mufun_jax.model.mufun import MuFunModel  # noqa: E402
from mufun_jax.model.presets import preset  # noqa: E402
from mufun_jax.sharding.mesh import inference_mesh  # noqa: E402
from mufun_jax.text.tokenizer import load_tokenizer  # noqa: E402
from mufun_jax.weights.model_folder import open_model_folder, save_model  # noqa: E402
from mufun_jax.weights.params import init_params  # noqa: E402
from tests.benchmarks.torch_inference import Ours, Theirs, off_by  # noqa: E402
from tests.parity.reference_model import ReferenceModel, params_of  # noqa: E402

SONG_SECONDS, QUESTIONS, ANSWER, QUESTION = 390, 20, 16, 32  # the last two in tokens
SHORT = 1024  # positions of a prefix
BATCH = 8
AGREEMENT = 1e-3
LEAST_REUSE, LEAST_BATCH, LONGEST_WAIT = 8.0, 1.5, 3.0

Row = tuple[str, ...]


def heard_whole(name: str) -> ModelConfig:
    """A preset that hears the song whole: the nano model's windows are 3 s, so it gets 130 of them."""
    config = preset(name)
    return replace(config, max_windows=round(SONG_SECONDS / config.encoder.window_seconds))


def write_song(path: Path, seconds: float) -> Path:
    """Tones and noise, 16 kHz mono."""
    at = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sound = 0.2 * np.sin(2 * np.pi * (220 + at) * at) + 0.05 * np.random.default_rng(0).standard_normal(at.size)
    soundfile.write(path, sound, SAMPLE_RATE)
    return path


def seconds_of(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


# --- reuse ----------------------------------------------------------------------------------------------------------


def measure_reuse(name: str, song: Path, rounds: int, *, large: bool) -> Iterator[tuple[Row, str | None]]:
    """A row for the questions one by one, and, unless `large`, one for all at once; and what was missed."""
    config, tokenizer = heard_whole(name), load_tokenizer("nano")
    mesh = inference_mesh()
    model = MuFun(MuFunModel(config), init_params(config, mesh, 0), tokenizer, mesh)
    questions = [make_question(f"What is heard in bar {number}?", song) for number in range(QUESTIONS)]

    def forget() -> None:
        model.engine.forget()
        model.listener = Listener(config, tokenizer, config.max_windows)

    def fresh() -> list[Answer]:
        answers = []
        for question in questions:
            forget()
            answers += model.answer([question], max_new_tokens=ANSWER)
        return answers

    def at_once() -> list[Answer]:
        forget()
        return model.answer(questions, max_new_tokens=ANSWER)

    def first_and_all() -> tuple[float, float, list[Answer]]:
        """Seconds of the first answer, which is a fresh one, and of all, one by one."""
        forget()
        began = time.perf_counter()
        answers = model.answer(questions[:1], max_new_tokens=ANSWER)
        first = time.perf_counter() - began
        for question in questions[1:]:
            answers += model.answer([question], max_new_tokens=ANSWER)
        return first, time.perf_counter() - began, answers

    model.answer(questions[:1], max_new_tokens=ANSWER)  # compiles
    seconds, expected = [], []
    for number in range(rounds):
        if large:
            first, one_by_one, _ = first_and_all()
            seconds.append((QUESTIONS * first, one_by_one))
            continue
        if number == 0:
            expected = [answer.tokens for answer in first_and_all()[2]]
            assert expected == [answer.tokens for answer in fresh()], "an answer is not the same without reuse"
            assert expected == [answer.tokens for answer in at_once()], "an answer is not the same in a batch"
        _, one_by_one, _ = first_and_all()
        seconds.append((seconds_of(fresh), one_by_one, seconds_of(at_once)))
    without, *reused = np.array(seconds).T
    for what, took in zip(("one by one", "all at once"), reused, strict=False):
        ratios = without / took
        ratio = float(np.median(ratios))
        cells = (name, what, f"{np.median(without):.1f} s", f"{np.median(took):.2f} s", *_ratio_cells(ratios))
        missed = f"{name}, {what}: {ratio:.2f} times, wanted {LEAST_REUSE}"
        yield cells, missed if ratio < LEAST_REUSE else None


# --- beside PyTorch -------------------------------------------------------------------------------------------------


def measure_beside_torch(name: str, rounds: int, positions: int, windows: int) -> Iterator[tuple[Row, str | None]]:
    """A row for each of encoder, prefill, and decoding after a short and a long prefix."""
    config = preset(name)
    reference = ReferenceModel(config)
    ours, theirs = Ours(config, params_of(reference)), Theirs(reference)
    rng = np.random.default_rng(0)

    def tokens(*shape: int) -> np.ndarray:
        return rng.integers(0, config.decoder.vocab_size, shape)

    log_mel = rng.standard_normal((windows, config.encoder.mel_bins, 2 * config.encoder.frames), np.float32)
    check("encoder", ours.encode(log_mel), theirs.encode(log_mel))
    pairs = [
        (seconds_of(lambda: ours.encode(log_mel)), seconds_of(lambda: theirs.encode(log_mel))) for _ in range(rounds)
    ]
    yield compared(name, f"encoder, a window of {config.encoder.window_seconds:g} s", np.array(pairs) / windows, 1.0)
    del log_mel, reference.encoder, ours.params["encoder"]  # eight long caches need the room

    for length in (SHORT, positions):
        prompt = tokens(length)
        our_prefix, their_prefix = ours.prefix(prompt), theirs.prefix(prompt)
        runs = (lambda: ours.prefix(prompt), lambda: theirs.prefix(prompt))  # noqa: B023  called at once
        pairs = [tuple(map(seconds_of, runs)) for _ in range(rounds if length == SHORT else min(rounds, 3))]
        yield compared(name, f"prefill of {length} positions", np.array(pairs), 1.0)
        for rows, shared in ((1, True), (BATCH, True), (BATCH, False)):
            if not shared and length > SHORT:
                continue  # eight caches of ours beside eight of theirs: more memory than there is
            questions = tokens(rows, QUESTION)
            prefixes = [our_prefix] * (1 if shared else rows)
            for kind in ("dynamic", "static"):
                seconds = []
                for number in range(rounds + 1):
                    prefix, decoding = ours.begin(prefixes, questions, ANSWER)
                    cache, logits = theirs.begin(their_prefix, questions, ANSWER, static=kind == "static")
                    if number == 0:
                        check(f"decoding {rows} rows", decoding.logits, logits)
                    began = time.perf_counter()
                    decoding = ours.draw(prefix, decoding, ANSWER)
                    between = time.perf_counter()
                    drawn, last = theirs.draw(cache, logits, ANSWER)
                    seconds.append((between - began, time.perf_counter() - between))
                    same = (np.asarray(decoding.tokens)[:, :ANSWER] == drawn.numpy()).all(1)
                    if same.any():  # others parted where two tokens were all but as likely
                        check("after the answer", decoding.logits[np.flatnonzero(same)], last[torch.from_numpy(same)])
                    del cache, logits, prefix, decoding, last
                of = "" if rows == 1 else ", one song" if shared else ", a song each"
                what = f"a token of {rows} row{'s' * (rows > 1)}{of}, after {length}; {kind}"
                least = LEAST_BATCH if rows > 1 else 1.0
                yield compared(name, what, np.array(seconds[1:]) / ANSWER, least)


def check(what: str, ours: object, theirs: object) -> None:
    """Ends the benchmark where the two do not compute the same."""
    found = off_by(ours, theirs)
    if not found < AGREEMENT:
        sys.exit(f"{what}: ours and PyTorch's differ by {found:.2g}, wanted within {AGREEMENT:g}")


def compared(name: str, what: str, pairs: np.ndarray, least: float) -> tuple[Row, str | None]:
    """A row from pairs of seconds, ours and PyTorch's."""
    ours, theirs = np.median(pairs, axis=0)
    ratios = pairs[:, 1] / pairs[:, 0]
    ratio = float(np.median(ratios))
    missed = f"{name}, {what}: {ratio:.2f} times the speed of PyTorch, wanted {least}"
    cells = (name, what, f"{1e3 * ours:.1f} ms", f"{1e3 * theirs:.1f} ms", *_ratio_cells(ratios))
    return cells, missed if ratio < least else None


def _ratio_cells(ratios: np.ndarray) -> Row:
    return f"{np.median(ratios):.2f}", f"{ratios.min():.2f} to {ratios.max():.2f}"


# --- the command ----------------------------------------------------------------------------------------------------


def measure_ask(checkpoint: Path | None, rounds: int, folder: Path) -> Iterator[tuple[Row, str | None]]:
    """A row: seconds to the first character of `mufun ask`, and to its end."""
    if checkpoint is None:
        config, mesh = preset("nano"), inference_mesh()
        checkpoint = folder / "checkpoint"
        save_model(checkpoint, config, init_params(config, mesh, 0), load_tokenizer("nano"))
    song = write_song(folder / "song.wav", open_model_folder(checkpoint).config.model.max_seconds)
    command = [sys.executable, "-m", "mufun_jax.cli", "ask", str(song), "What is the key?"]
    command += ["--checkpoint", str(checkpoint), "--max-new-tokens", str(ANSWER)]
    environment = warm_environment(folder)
    seconds = []
    for _ in range(rounds + 1):  # the first compiles
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - began
        process.communicate()
        assert process.returncode == 0, "mufun ask failed"
        seconds.append((first, time.perf_counter() - began))
    cold, *warm = seconds
    first, whole = np.median(warm, axis=0)
    low, high = np.min(warm, axis=0)[0], np.max(warm, axis=0)[0]
    cells = ("nano", f"{cold[0]:.1f} s", f"{first:.2f} s", f"{low:.2f} to {high:.2f} s", f"{whole:.2f} s")
    yield cells, f"mufun ask: first word after {first:.2f} s, wanted {LONGEST_WAIT}" if first > LONGEST_WAIT else None


def warm_environment(folder: Path) -> dict[str, str]:
    """A user's: programs and Python's bytecode are kept, in a folder of this benchmark."""
    left_out = ("PYTHONDONTWRITEBYTECODE", "JAX_COMPILATION_CACHE_DIR", "PJRT_NPROC", "OMP_WAIT_POLICY")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    return environment | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


# --------------------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", help="of reuse, torch, ask; by default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["nano", "mufun_0_6b"])
    parser.add_argument("--positions", type=int, default=3904, help="of the long prefix: a song of 390 s")
    parser.add_argument("--windows", type=int, default=1, help="of the encoder, at once")
    parser.add_argument("--checkpoint", type=Path, help="for `ask`; by default a fresh nano model")
    given = parser.parse_args()
    logging.getLogger().addHandler(logging.NullHandler())
    torch.set_num_threads(THREADS)
    measures = given.measures or ["reuse", "torch", "ask"]
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "reuse" in measures:
            song, rows = write_song(folder / "long.wav", SONG_SECONDS), []
            for model in given.models:
                large = model != "nano"
                rows += told(measure_reuse(model, song, 1 if large else given.rounds, large=large))
            title = f"{QUESTIONS} questions on one song of {SONG_SECONDS} s, {ANSWER} tokens each"
            missed += print_table(title, ("", "questions", "without reuse", "with", "ratio", "in the rounds"), rows)
        if "torch" in measures:
            rows = []
            for model in given.models:
                rows += told(measure_beside_torch(model, given.rounds, given.positions, given.windows))
            title = f"Beside PyTorch {torch.__version__}, float32, {THREADS} threads: medians of {given.rounds} rounds"
            missed += print_table(title, ("", "", "ours", "PyTorch", "of ours", "in the rounds"), rows)
        if "ask" in measures:
            rows = told(measure_ask(given.checkpoint, given.rounds, folder))
            title = f"mufun ask, all compiled before: medians of {given.rounds} rounds"
            columns = ("", "first word, compiling", "first word", "in the rounds", "whole answer")
            missed += print_table(title, columns, rows)
    print("\n".join(missed))


def told(rows: Iterator[tuple[Row, str | None]]) -> list[tuple[Row, str | None]]:
    """All rows; each is told on standard error as it comes, for the large model takes long."""
    found = []
    for row in rows:
        print("  ".join(row[0]), file=sys.stderr, flush=True)
        found.append(row)
    return found


def print_table(title: str, columns: Row, rows: list[tuple[Row, str | None]]) -> list[str]:
    """Prints it; returns what was missed."""
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    table = Table(title=f"{title} (load {load})", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number > 1 else "left")
    for cells, _ in rows:
        table.add_row(*cells)
    Console(width=120).print(table)
    return [missed for _, missed in rows if missed is not None]


if __name__ == "__main__":
    main()
