"""SIGTERM at any moment: saved, out in half a minute with the exit code that has it started again, resumed exactly."""

import random
import shutil
import signal
import time

import pytest

from mufun_jax.errors import RESTART
from mufun_jax.train.metrics import read_metrics
from tests.faults.nano_runs import Kill, assert_same, begin, draw_kill, log_of, train
from tests.faults.test_kills import seeds

MOMENTS, SLOW = 20, 2
LONGEST = 30.0  # seconds from the signal to the end


@pytest.mark.parametrize("seed", seeds(MOMENTS, SLOW))
def test_a_run_told_to_end_at_a_random_moment(seed, corpus, undisturbed, programs, seconds, tmp_path):
    rng = random.Random(1000 + seed)
    workdir = begin(tmp_path / "run", programs)
    kill = draw_kill(rng, seconds, signal.SIGTERM)
    code = train(corpus, workdir, kill)
    ended = time.time()
    log = log_of(workdir).read_text()
    assert code in (0, RESTART), log[-3000:]  # 0: it came after the last step
    if code == RESTART:
        sent = float(log.rpartition("sent at ")[2].split()[0])
        assert ended - sent < LONGEST
        assert "stopped by SIGTERM; " in log
        assert_nothing_unsaved(workdir, log)
    assert train(corpus, workdir) == 0, log_of(workdir).read_text()[-3000:]
    assert_same(workdir, undisturbed)
    shutil.rmtree(workdir)


def assert_nothing_unsaved(workdir, log: str) -> None:
    """Every step that was taken is in the newest checkpoint."""
    lines = list(read_metrics(workdir / "metrics.jsonl"))
    steps = [int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()]
    assert max(steps, default=0) == (lines[-1]["global_step"] if lines else 0), log[-1000:]


@pytest.mark.slow
def test_ctrl_c_saves_too_and_is_not_to_be_started_again(corpus, undisturbed, programs, tmp_path):
    workdir = begin(tmp_path / "run", programs)
    assert train(corpus, workdir, Kill("stage", 2, 3.0, signal.SIGINT)) == 130
    assert "stopped by SIGINT; step " in log_of(workdir).read_text()
    assert_nothing_unsaved(workdir, "")
    assert train(corpus, workdir) == 0
    assert_same(workdir, undisturbed)
