"""Disks that are full or may not be written, clocks that jump: a clear error, and the last checkpoint stays good."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from mufun_jax.errors import UserError
from mufun_jax.train.checkpoint import list_steps
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.metrics import read_metrics
from tests.train.tiny_run import KilledError, tiny_run

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount and lock; in containers and on CI one is")
KEPT = ("checkpoint.every_steps=1", "checkpoint.keep=100")


@pytest.fixture(scope="module")
def whole(tiny_corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    train_curriculum(tiny_run(tiny_corpus), workdir)
    return workdir


def losses(workdir: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(workdir / "metrics.jsonl")]


@pytest.fixture
def small_disk(tmp_path):
    """A disk that can be filled, and remounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@as_root
def test_a_disk_that_is_full_during_a_save(tiny_corpus, whole, small_disk):
    """It fills up in the second stage. What was saved before goes on when there is room."""
    workdir, filler = small_disk / "run", small_disk / "filler"
    run = tiny_run(tiny_corpus, *KEPT)

    def fill(stage, step, steps, line):
        if line["global_step"] == 6:
            with filler.open("wb") as file:
                free = small_disk_free(small_disk)
                file.write(bytes(max(0, free - 32 * 1024)))  # room for metrics, for no checkpoint

    with pytest.raises((UserError, OSError)) as stop:
        train_curriculum(run, workdir, Callbacks(on_step=fill))
    assert "No space left on device" in str(stop.value)
    assert len(str(stop.value).splitlines()) == 1
    filler.unlink()
    newest = list_steps(workdir / "checkpoints")[-1]
    assert 4 <= newest <= 8
    started = []
    train_curriculum(run, workdir, Callbacks(on_event=lambda *event: started.append(event)))
    assert ("start", f"goes on after step {newest}") in started
    assert losses(workdir) == losses(whole)


def small_disk_free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


@as_root
def test_a_workdir_that_becomes_read_only(tiny_corpus, whole, tmp_path):
    """Its folder of checkpoints may no longer be written, from the middle of the run on."""
    workdir = tmp_path / "run"
    folder = workdir / "checkpoints"

    def lock(stage, step, steps, line):
        if line["global_step"] == 6:
            subprocess.run(["chattr", "+i", folder], check=True)

    try:
        with pytest.raises((UserError, OSError), match="Operation not permitted"):
            train_curriculum(tiny_run(tiny_corpus, *KEPT), workdir, Callbacks(on_step=lock))
    finally:
        subprocess.run(["chattr", "-i", folder], check=True)
    assert list_steps(folder)[-1] in (4, 5, 6)
    train_curriculum(tiny_run(tiny_corpus, *KEPT), workdir)
    assert losses(workdir) == losses(whole)


@as_root
def test_a_workdir_that_is_read_only_from_the_start(tiny_corpus, small_disk):
    workdir = small_disk / "run"
    train_curriculum(tiny_run(tiny_corpus, "curriculum=('warmup',)"), workdir)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(OSError, match="Read-only file system"):
        train_curriculum(tiny_run(tiny_corpus, "curriculum=('warmup',)"), workdir)


@pytest.mark.parametrize("jump", [-1e7, 1e7])
def test_a_clock_that_jumps(tiny_corpus, whole, tmp_path, monkeypatch, jump):
    """Half a year back, or on, in the middle of the run, and back again after a stop."""
    real = time.time

    def jumping(stage, step, steps, line):
        if line["global_step"] == 5:
            monkeypatch.setattr(time, "time", lambda: real() + jump)
        if line["global_step"] == 9:
            raise KilledError

    with pytest.raises(KilledError):
        train_curriculum(tiny_run(tiny_corpus, *KEPT), tmp_path, Callbacks(on_step=jumping))
    monkeypatch.setattr(time, "time", real)
    train_curriculum(tiny_run(tiny_corpus, *KEPT), tmp_path)
    assert losses(tmp_path) == losses(whole)
    assert list_steps(tmp_path / "checkpoints") == list(range(1, 13))
    assert all(0 <= line["goodput"] <= 1 for line in read_metrics(tmp_path / "metrics.jsonl"))
    sessions = [json.loads(line)["session"] for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert sessions == sorted(sessions) and set(sessions) == {0, 1}
