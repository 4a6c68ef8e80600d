"""A corpus for runs of the nano curriculum, one run that nothing disturbs, and its compiled programs."""

import time

import pytest

from tests.faults.nano_runs import log_of, train, write_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def undisturbed(corpus, tmp_path_factory):
    """Its workdir. The first run compiles."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert train(corpus, workdir) == 0, log_of(workdir).read_text()[-3000:]
    return workdir


@pytest.fixture(scope="session")
def programs(undisturbed):
    return undisturbed / "compiled"


@pytest.fixture(scope="session")
def seconds(corpus, programs, tmp_path_factory):
    """How long a run takes whose programs are compiled."""
    from tests.faults.nano_runs import begin

    workdir = begin(tmp_path_factory.mktemp("timed") / "run", programs)
    started = time.monotonic()
    assert train(corpus, workdir) == 0
    return time.monotonic() - started
