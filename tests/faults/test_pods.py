"""Several processes, one of them killed or told to end: all end, the lost one is named, and the run resumes exactly.

They are started one by one, as on a pod, without a launcher that would end the others.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mufun_jax.errors import RESTART
from mufun_jax.train.metrics import read_metrics
from mufun_jax.weights.model_folder import open_model_folder

ROOT = Path(__file__).parents[2]
PROCESSES = 3
STEPS, KILLED_AFTER = 80, 25  # between two saves: inside one, the others wait for JAX's heartbeats first
SETTINGS = (
    "mesh.simulated_devices=1",
    f"mesh.data={PROCESSES}",
    "curriculum=('align',)",
    f"stages.align.steps={STEPS}",
    f"stages.align.rows={PROCESSES}",
    "checkpoint.every_steps=20",
)


def start(corpus: Path, workdir: Path, programs: Path, *settings: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "mufun_jax.cli", "train", "--config", str(corpus / "tiny.py")]
    command += ["--workdir", str(workdir), "--coordinator", address, "--processes", str(PROCESSES)]
    command += [word for setting in (f"data={corpus}", *SETTINGS, *settings) for word in ("--set", setting)]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(programs)}
    return [
        subprocess.Popen(
            [*command, "--process", str(number)],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=-1,
            stderr=subprocess.STDOUT,
        )
        for number in range(PROCESSES)
    ]


def end(running: list[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str]]:
    """Exit codes and what was printed, of all. Those that do not end in time are killed, and fail the test."""
    deadline, ended = time.monotonic() + seconds, []
    try:
        for process in running:
            said, _ = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            ended.append((process.returncode, said))
    finally:
        for process in running:
            process.kill()
    return ended


def wait_for_steps(workdir: Path, steps: int) -> None:
    deadline = time.monotonic() + 300
    while sum(1 for _ in read_metrics(workdir / "metrics.jsonl")) < steps:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def whole(tiny_corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    ended = end(start(tiny_corpus, workdir, workdir / "compiled"), 500)
    assert [code for code, _ in ended] == [0] * PROCESSES, ended[0][1][-3000:]
    return workdir


def assert_resumes(corpus: Path, workdir: Path, whole: Path) -> None:
    ended = end(start(corpus, workdir, whole / "compiled"), 300)
    assert [code for code, _ in ended] == [0] * PROCESSES, ended[0][1][-3000:]
    ours, expected = (list(read_metrics(folder / "metrics.jsonl")) for folder in (workdir, whole))
    for name in ("global_step", "loss", "examples"):
        assert [line[name] for line in ours] == [line[name] for line in expected]
    model, reference = (open_model_folder(folder / "checkpoint").tensors for folder in (workdir, whole))
    for name, tensor in reference.items():
        assert (model[name].read() == tensor.read()).all(), name


@pytest.mark.parametrize("lost", [pytest.param(2, marks=pytest.mark.slow), pytest.param(0, marks=pytest.mark.full)])
def test_one_of_three_is_killed(lost, tiny_corpus, whole, tmp_path):
    running = start(tiny_corpus, tmp_path, whole / "compiled")
    wait_for_steps(tmp_path, KILLED_AFTER)
    running[lost].send_signal(signal.SIGKILL)
    ended = end(running, 60)
    for number, (code, said) in enumerate(ended):
        if number != lost:
            assert code not in (0, 2), said[-3000:]
    # Process 0 is JAX's coordinator too: where it is killed the others are ended by JAX, whose words name no number.
    if lost:
        said = ended[0][1]
        assert "the connection to another process was lost; process 2 (on " in said, said[-3000:]
        assert "of 3 gives no sign of life" in said and "Traceback" not in said
    assert_resumes(tiny_corpus, tmp_path, whole)


@pytest.mark.slow
def test_one_of_three_is_told_to_end(tiny_corpus, whole, tmp_path):
    running = start(tiny_corpus, tmp_path, whole / "compiled")
    wait_for_steps(tmp_path, KILLED_AFTER)
    running[1].send_signal(signal.SIGTERM)
    ended = end(running, 30)
    assert [code for code, _ in ended] == [RESTART] * PROCESSES, ended
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    last = list(read_metrics(tmp_path / "metrics.jsonl"))[-1]["step"]
    assert (
        events[-1]["message"]
        == f"stopped by SIGTERM; step {last} of align is saved: the same command goes on from there"
    )
    assert_resumes(tiny_corpus, tmp_path, whole)


@pytest.mark.full
def test_one_of_three_is_frozen(tiny_corpus, whole, tmp_path):
    """It is named while it is, and when it wakes up all goes on as if nothing had been."""
    running = start(tiny_corpus, tmp_path, whole / "compiled", "watch.stall_minutes=0.25")
    wait_for_steps(tmp_path, KILLED_AFTER)
    running[1].send_signal(signal.SIGSTOP)
    deadline, said = time.monotonic() + 90, ""
    while "stalled" not in said:
        assert time.monotonic() < deadline
        time.sleep(0.5)
        said = (tmp_path / "events.jsonl").read_text()
    running[1].send_signal(signal.SIGCONT)
    stalled = next(line for line in map(json.loads, said.splitlines()) if line["event"] == "stalled")
    assert "process 1 (on " in stalled["message"] and "of 3 gives no sign of life" in stalled["message"]
    ended = end(running, 300)
    assert [code for code, _ in ended] == [0] * PROCESSES, ended[0][1][-3000:]
    losses = [[line["loss"] for line in read_metrics(folder / "metrics.jsonl")] for folder in (tmp_path, whole)]
    assert losses[0] == losses[1]
