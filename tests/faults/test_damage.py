"""Damaged checkpoints: found, named, put aside, and the run goes on from the one before; never a silent load."""

import gc
import json
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import jax
import numpy as np
import pytest

from mufun_jax.errors import CheckpointError
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.train.checkpoint import Checkpoints, DamagedCheckpointError
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.metrics import read_metrics
from mufun_jax.train.state import abstract_saved
from tests.train.tiny_run import KilledError, tiny_run

DAMAGES = 200  # of a sealed checkpoint; a tenth of them in `make test-slow`
UNSEALED = 100
NEWEST, BEFORE = 8, 4  # the global steps of the checkpoints


@dataclass
class Told:
    events: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, event: str, message: str, **more: float) -> None:
        self.events.append((event, message))


@pytest.fixture(scope="module")
def stopped(tiny_corpus, tmp_path_factory):
    """A run stopped in its second stage, with checkpoints of the steps 3, 4 and 8, sealed."""
    workdir = tmp_path_factory.mktemp("stopped")

    def kill(stage, step, steps, line):
        if line["global_step"] == NEWEST + 1:
            raise KilledError

    with pytest.raises(KilledError):
        train_curriculum(tiny_run(tiny_corpus), workdir, Callbacks(on_step=kill))
    return workdir


@pytest.fixture(scope="module")
def whole(tiny_corpus, tmp_path_factory):
    """The same run, not stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    train_curriculum(tiny_run(tiny_corpus), workdir)
    return workdir


def files_of(stopped: Path) -> list[str]:
    folder = stopped / "checkpoints" / str(NEWEST)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def copy_of(stopped: Path, folder: Path) -> Path:
    shutil.copytree(stopped / "checkpoints", folder / "checkpoints")
    return folder


def damage(path: Path, rng: random.Random) -> str:
    """Flips a bit, cuts the file short, makes it longer, or takes it away; says what."""
    data = bytearray(path.read_bytes())
    what = rng.choice(["flip", "flip", "flip", "cut", "longer", "gone"])
    if what == "gone" or (what in ("flip", "cut") and not data):
        path.unlink()
        return "gone"
    if what == "flip":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif what == "cut":
        data = data[: rng.randrange(len(data))]
    else:
        data += bytes(rng.randrange(1, 100))
    path.write_bytes(data)
    return what


def checks(count: int, slow: int) -> list:
    return [pytest.param(n, marks=() if n < slow else pytest.mark.full) for n in range(count)]


def restored(workdir: Path, run, told: Told):
    """What a run would go on from: the place, and the state there."""
    checkpoints = Checkpoints(workdir, run.checkpoint, told)
    try:
        while True:
            position = checkpoints.latest(run)
            assert position is not None
            like = abstract_saved(run, run.stages[position.stage], make_mesh(run.mesh))
            try:
                return position, checkpoints.restore(position, like)
            except DamagedCheckpointError:
                continue
    finally:
        checkpoints.close()


def same(one, other) -> bool:
    return all(
        bool((np.asarray(a) == np.asarray(b)).all())
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("seed", checks(DAMAGES, DAMAGES // 10))
def test_damage_is_found_named_and_passed_by(seed, tiny_corpus, stopped, tmp_path):
    rng = random.Random(seed)
    files = files_of(stopped)
    workdir = copy_of(stopped, tmp_path)
    name = files[seed % len(files)]  # each file in its turn
    what = damage(workdir / "checkpoints" / str(NEWEST) / name, rng)
    told = Told()
    position, _ = restored(workdir, tiny_run(tiny_corpus), told)
    if what == "gone" and name.startswith(
        "seal-"
    ):  # as of a run that was killed before it could seal: arrays are checked
        assert position.global_step == NEWEST
        return
    assert position.global_step == BEFORE, (name, what)
    (event, message), *more = told.events
    assert (event, more) == ("damaged", [])
    assert f"the checkpoint of step {NEWEST} is damaged ({name} " in message, (name, what, message)
    assert (workdir / "damaged" / str(NEWEST)).is_dir()
    assert not (workdir / "checkpoints" / str(NEWEST)).exists()


# Reads that fail leave others of the same checkpoint under way, which then find their event loop closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("seed", checks(UNSEALED, UNSEALED // 10))
def test_without_a_seal_the_arrays_themselves_are_checked(seed, tiny_corpus, stopped, tmp_path):
    """A run that was killed between a save and its seal. What is loaded is what was saved, or the one before."""
    run = tiny_run(tiny_corpus)
    workdir = copy_of(stopped, tmp_path)
    folder = workdir / "checkpoints" / str(NEWEST)
    _, expected = restored(copy_of(stopped, tmp_path / "whole"), run, Told())
    for seal in folder.glob("seal-*"):
        seal.unlink()
    files = [name for name in files_of(stopped) if not name.startswith("seal-")]
    what = damage(folder / files[seed % len(files)], random.Random(seed))
    told = Told()
    position, saved = restored(workdir, run, told)
    if position.global_step == NEWEST:
        assert same(saved, expected), (files[seed % len(files)], what)
    else:
        assert position.global_step == BEFORE
        assert told.events[0][0] == "damaged" and f"step {NEWEST} is damaged" in told.events[0][1]
    gc.collect()


@pytest.mark.parametrize("nth", [pytest.param(n, marks=pytest.mark.full if n else pytest.mark.slow) for n in range(4)])
def test_a_run_goes_on_from_the_one_before_whichever_file_is_damaged(nth, tiny_corpus, stopped, whole, tmp_path):
    """Every file, a quarter of them in each of four tests."""
    for number, name in enumerate(files_of(stopped)[nth::4]):
        workdir = tmp_path / str(number)
        shutil.copytree(stopped, workdir)
        path = workdir / "checkpoints" / str(NEWEST) / name
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
        train_curriculum(tiny_run(tiny_corpus), workdir)
        ours, expected = (
            [line["loss"] for line in read_metrics(folder / "metrics.jsonl")] for folder in (workdir, whole)
        )
        assert ours == expected, name
        events = [json.loads(line) for line in (workdir / "events.jsonl").read_text().splitlines()]
        assert sum(event["event"] == "damaged" for event in events) == 1, name
        starts = [event["resumed_from"] for event in events if event["event"] == "start"]
        assert starts == [None, BEFORE], name


def test_an_older_checkpoint_that_is_damaged_is_in_nobodys_way(tiny_corpus, stopped, whole, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "3").rglob("*"):
        if path.is_file():
            path.write_bytes(b"?")
    train_curriculum(tiny_run(tiny_corpus), tmp_path / "run")
    lines = list(read_metrics(tmp_path / "run" / "metrics.jsonl"))
    assert [line["loss"] for line in lines] == [line["loss"] for line in read_metrics(whole / "metrics.jsonl")]


def test_where_no_checkpoint_is_whole_nothing_is_begun_anew(tiny_corpus, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "meta" / "metadata").write_text("{}")
    with pytest.raises(CheckpointError, match=r"none of its 3 checkpoints is whole, they are in .*damaged; bring one"):
        train_curriculum(tiny_run(tiny_corpus), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "damaged").iterdir()} == {"3", "4", "8"}


def test_a_save_that_was_cut_short_is_told_and_cleaned_away(tiny_corpus, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    cut = tmp_path / "run" / "checkpoints" / "12.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "run" / "checkpoints" / "8", cut)
    events = []
    train_curriculum(tiny_run(tiny_corpus), tmp_path / "run", Callbacks(on_event=lambda *event: events.append(event)))
    assert ("damaged", "the save of step 12 was cut short") in events
    assert not cut.exists()
