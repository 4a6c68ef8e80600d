"""A run that is killed, at any moment, again and again, is the run that nothing disturbed."""

import random
import shutil
import signal

import pytest

from tests.faults.nano_runs import Kill, assert_same, begin, draw_kill, log_of, train

SEEDS = 100
SLOW = 10  # of them in `make test-slow`
AGAIN = 0.2  # how many are killed once more before they end


def seeds(count: int, slow: int) -> list:
    return [pytest.param(n, marks=pytest.mark.slow if n < slow else pytest.mark.full) for n in range(count)]


@pytest.mark.parametrize("seed", seeds(SEEDS, SLOW))
def test_a_run_killed_at_random_moments(seed, corpus, undisturbed, programs, seconds, tmp_path):
    rng = random.Random(seed)
    workdir = begin(tmp_path / "run", programs)
    for _ in range(1 + (rng.random() < AGAIN)):
        code = train(corpus, workdir, draw_kill(rng, seconds))
        assert code in (0, -signal.SIGKILL), log_of(workdir).read_text()[-3000:]
    assert train(corpus, workdir) == 0, log_of(workdir).read_text()[-3000:]
    assert_same(workdir, undisturbed)
    shutil.rmtree(workdir)


@pytest.mark.parametrize(
    "where", [pytest.param("save", marks=pytest.mark.slow), pytest.param("stage", marks=pytest.mark.full)]
)
def test_a_run_killed_where_it_hurts(where, corpus, undisturbed, programs, tmp_path):
    """Right inside the second save, and the change to the second stage."""
    workdir = begin(tmp_path / "run", programs)
    kill = Kill(where, 2, 0.02)
    assert train(corpus, workdir, kill) == -signal.SIGKILL
    assert train(corpus, workdir) == 0, log_of(workdir).read_text()[-3000:]
    assert_same(workdir, undisturbed)
