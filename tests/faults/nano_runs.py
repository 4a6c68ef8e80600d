"""Runs of the nano curriculum, cut short, each in a process of its own that can be killed at a chosen moment."""

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.prepare import PrepareOptions, prepare
from data_pipelines.score_corpus import ScoreCorpusConfig, render_score_corpus
from data_pipelines.source import score_corpus_sources
from mufun_jax.config import RunConfig
from mufun_jax.config_file import load_run_config
from mufun_jax.errors import exit_code
from mufun_jax.train.metrics import read_metrics

CONFIG = Path(__file__).parents[2] / "configs" / "nano.py"
STAGES = ("warmup", "align1", "align2", "context_extend", "finetune_short", "finetune_long")
STEPS = 2  # of each stage
# Small rows: the six stages, their sizes and what trains in them are those of the demo.
SETTINGS = (
    *(f"stages.{stage}.steps={STEPS}" for stage in STAGES),
    *(f"stages.{stage}.rows=2" for stage in STAGES),
    "checkpoint.every_steps=3",
)
_PIECES = {
    "pieces": 40,
    "train_notes": 16,
    "train_excerpts": 6,
    "train_songs": 2,
    "held_out_notes": 4,
    "held_out_excerpts": 4,
    "held_out_songs": 2,
}
_PRELOADED = ["mufun_jax.train.curriculum", "data_pipelines.loader", "tensorboardX", "tests.faults.nano_runs"]
Seconds = float


@dataclass(frozen=True)
class Kill:
    """A signal that a run sends itself, `after` so long from when it comes to `where` for the `nth` time.

    `where`: "start" of the process, "save" (one begins), "stage" (one begins) or "step" (the first one of a process).
    """

    where: str
    nth: int
    after: Seconds
    signal: int = signal.SIGKILL


def write_corpus(folder: Path) -> Path:
    """A small score corpus, prepared, in `folder`."""
    corpus = folder / "score_corpus"
    render_score_corpus(corpus, ScoreCorpusConfig(seed=0, **_PIECES), workers=2)
    prepare(score_corpus_sources(corpus), folder, PrepareOptions(workers=2))
    return folder


def nano_run(corpus: Path, *settings: str) -> RunConfig:
    return load_run_config(CONFIG, [f"data={corpus}", *SETTINGS, *settings])


def train(corpus: Path, workdir: Path, kill: Kill | None = None, *settings: str) -> int:
    """Trains in a new process; returns its exit code, negative for a signal. What it prints is in WORKDIR.log."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    arguments = (str(corpus), str(workdir), kill, settings)
    process = context.Process(target=_train, args=arguments)
    process.start()
    process.join(timeout=300)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{workdir}: the run hangs; {log_of(workdir).read_text()[-2000:]}")
    return process.exitcode


def log_of(workdir: Path) -> Path:
    return workdir.with_name(workdir.name + ".log")


def _train(corpus: str, workdir: str, kill: Kill | None, settings: tuple[str, ...]) -> None:
    """In the new process: trains as `mufun train` does, noting what was in each batch that a step took."""
    log = log_of(Path(workdir)).open("a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    from mufun_jax import commands
    from mufun_jax.train import loop, stage_run

    print(f"--- {kill}", flush=True)
    if kill is not None:
        _arm(kill)
    taken = loop.train_steps

    def noting(state, train_step, elements, rows, **more):
        path = Path(workdir) / "batches.jsonl"
        noted = (_note(element, step, path) for step, element in enumerate(elements, more["first"] + 1))
        return taken(state, train_step, noted, rows, **more)

    stage_run.train_steps = noting
    try:
        commands.train(nano_run(Path(corpus), *settings), Path(workdir))
    except BaseException as error:  # noqa: BLE001  as the command line does
        print(f"error: {error}", flush=True)
        sys.exit(exit_code(error))


def _note(element: dict, step: int, path: Path) -> dict:
    digest = hashlib.sha256()
    for leaf in element["batch"].__dict__.values():
        digest.update(leaf.tobytes())
    with path.open("a") as file:
        file.write(json.dumps({"batch": f"{step} {digest.hexdigest()}"}) + "\n")
    return element


def _arm(kill: Kill) -> None:
    """Makes this process send itself the signal."""
    from mufun_jax.train.checkpoint import Checkpoints
    from mufun_jax.train.stage_run import StageRun

    came = 0

    def send() -> None:
        time.sleep(kill.after)
        print(f"sent at {time.time()} ", flush=True)
        os.kill(os.getpid(), kill.signal)

    def here() -> None:
        nonlocal came
        came += 1
        if came == kill.nth:
            threading.Thread(target=send, daemon=True).start()

    def armed(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments, **more):
            here()
            return original(*arguments, **more)

        setattr(owner, name, wrapped)

    if kill.where == "start":
        here()
    else:
        owner, name = {
            "save": (Checkpoints, "save"),
            "stage": (StageRun, "__init__"),
            "step": (StageRun, "_train_step"),
        }[kill.where]
        armed(owner, name)


def draw_kill(rng: random.Random, seconds: Seconds, number: int = signal.SIGKILL) -> Kill:
    """A moment of a run that takes so long: anywhere, inside a save, at a change of stages, or in the first step."""
    where = rng.choice(["start", "start", "save", "save", "stage", "step"])
    nth = 1 if where in ("start", "step") else rng.randint(1, len(STAGES))
    after = rng.uniform(0.0, {"start": seconds, "save": 0.4, "stage": 1.5, "step": 1.0}[where])
    return Kill(where, nth, after, number)


def begin(workdir: Path, programs: Path) -> Path:
    """A fresh workdir with the programs of another run compiled."""
    shutil.copytree(programs, workdir / "compiled")
    return workdir


def losses(workdir: Path) -> list[tuple[int, str, float]]:
    return [(line["global_step"], line["stage"], line["loss"]) for line in read_metrics(workdir / "metrics.jsonl")]


def examples(workdir: Path) -> list[int]:
    return [line["examples"] for line in read_metrics(workdir / "metrics.jsonl")]


def batches(workdir: Path) -> list[str]:
    """Step of the stage and what was in its batch, in the order in which they were taken."""
    return [line["batch"] for line in read_metrics(workdir / "batches.jsonl")]


def model_digest(workdir: Path) -> dict[str, str]:
    """The files of the trained model."""
    files = sorted((workdir / "checkpoint").glob("*.safetensors"))
    assert files
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def assert_same(workdir: Path, undisturbed: Path) -> None:
    """Losses and parameters to the last bit, and of each step the same examples: none repeated, none lost."""
    assert losses(workdir) == losses(undisturbed)
    assert examples(workdir) == examples(undisturbed)
    assert model_digest(workdir) == model_digest(undisturbed)
    order = {digest: place for place, digest in enumerate(batches(undisturbed))}
    taken = [order[digest] for digest in batches(workdir)]  # a KeyError: a batch that the other run did not have
    # Between kills, batch after batch; after a kill, back to one that was taken already, never beyond the next.
    furthest = -1
    for place, after in zip([-1, *taken], taken, strict=False):
        assert after == place + 1 or after <= furthest, taken
        furthest = max(furthest, after)
    assert furthest == len(order) - 1
