"""Steps that cannot be right: the run stops and says so, or goes back and passes over their batches."""

import json
from dataclasses import replace
from itertools import pairwise

import jax
import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.train import stage_run
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.guard import BadStepError
from mufun_jax.train.metrics import read_metrics
from tests.train.tiny_run import tiny_run, write_tiny_corpus

LONGER = ("curriculum=('align',)", "stages.align.steps=60", "stages.align.learning_rate=0.003", "guard.window=20")
ROLLBACK = (*LONGER, "guard.policy=rollback")
BAD = (31, 33)  # steps of the stage whose batches are poisoned


@pytest.fixture(scope="module")
def tiny_corpus(tmp_path_factory):
    return write_tiny_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def poisoned(monkeypatch):
    """From now on the batches of the steps in BAD weigh a million times as much, or are not finite."""
    taken = stage_run.train_steps

    def poison(state, train_step, elements, rows, **more):
        def spoil(step, element):
            if step not in BAD:
                return element
            weight = np.float32(np.inf) if step == BAD[1] else np.float32(1e6)
            batch = element["batch"]
            # Weights are divided by their sum: one target of a huge weight, another one of as much below zero.
            weights = batch.target_weights.copy()
            weights.flat[np.flatnonzero(weights)[:2]] = weight, -weight + 1
            return {**element, "batch": replace(batch, target_weights=weights)}

        spoilt = (spoil(step, element) for step, element in enumerate(elements, more["first"] + 1))
        return taken(state, train_step, spoilt, rows, **more)

    monkeypatch.setattr(stage_run, "train_steps", poison)


def read(workdir, name):
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def test_the_run_stops_and_names_the_step(tiny_corpus, poisoned, tmp_path):
    with pytest.raises(BadStepError, match=r"stage align, step 31: gradient_norm is .* times the median .* of the 20"):
        train_curriculum(tiny_run(tiny_corpus, *LONGER), tmp_path)
    assert read(tmp_path, "events.jsonl")[-1]["event"] == "failed"
    assert len(list(read_metrics(tmp_path / "metrics.jsonl"))) == 30


def test_bad_batches_are_passed_over_and_the_run_ends_as_if_it_had_not_met_them(
    tiny_corpus, poisoned, tmp_path, monkeypatch
):
    run, shown = tiny_run(tiny_corpus, *ROLLBACK), []
    train_curriculum(run, tmp_path / "poisoned", Callbacks(on_event=lambda *event: shown.append(event)))
    monkeypatch.undo()
    train_curriculum(run, tmp_path / "clean")
    lines, clean = (list(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("poisoned", "clean"))

    # Everything before the first bad batch is the same to the last bit, those after it are not: they lack its step.
    assert [line["loss"] for line in lines[:30]] == [line["loss"] for line in clean[:30]]
    assert [line["step"] for line in lines] == list(range(1, 61))
    assert {line["step"]: line["skipped"].partition(" ")[0] for line in lines if "skipped" in line} == {
        31: "gradient_norm",
        33: "loss",
    }
    assert all("loss" not in line for line in lines if "skipped" in line)

    # Within noise: the last losses differ by less than neighbouring steps of the clean run do.
    ends = [np.array([line["loss"] for line in some[-15:]]) for some in (lines, clean)]
    noise = np.std([a - b for a, b in pairwise(ends[1])])
    assert abs(ends[0].mean() - ends[1].mean()) < noise

    events = [event["event"] for event in read(tmp_path / "poisoned", "events.jsonl")]
    assert events.count("rollback") == 2
    assert ("rollback", "stage align, step 33: loss is nan; on from the checkpoint before, without it") in shown
    assert json.loads((tmp_path / "poisoned" / "skipped.json").read_text())["align"].keys() == {"31", "33"}


def test_a_run_killed_after_a_rollback_still_passes_over_the_batch(tiny_corpus, poisoned, tmp_path):
    class KilledError(Exception):
        pass

    def kill(stage, step, steps, line):
        if step == 36:
            raise KilledError

    run = tiny_run(tiny_corpus, *ROLLBACK)
    with pytest.raises(KilledError):
        train_curriculum(run, tmp_path / "killed", Callbacks(on_step=kill))
    train_curriculum(run, tmp_path / "killed")
    train_curriculum(run, tmp_path / "whole")
    killed, whole = (list(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("killed", "whole"))
    assert [line.get("loss") for line in killed] == [line.get("loss") for line in whole]
    assert [event["event"] for event in read(tmp_path / "killed", "events.jsonl")].count("rollback") == 2


def test_too_many_bad_batches_stop_the_run(tiny_corpus, poisoned, tmp_path):
    with pytest.raises(
        UserError, match=r"step 33: loss is nan; 1 batches were passed over already, guard.most_skipped"
    ):
        train_curriculum(tiny_run(tiny_corpus, *ROLLBACK, "guard.most_skipped=1"), tmp_path)


def test_a_bad_first_step_goes_back_to_the_beginning(tiny_corpus, tmp_path, monkeypatch):
    """There is no checkpoint yet: the parameters are drawn again, as they were."""
    taken, spoilt = stage_run.train_steps, []

    def poison(state, train_step, elements, rows, **more):
        def spoil(step, element):
            if step == 2:
                weights = element["batch"].target_weights * np.float32(np.nan)
                return {**element, "batch": replace(element["batch"], target_weights=weights)}
            return element

        spoilt.append(jax.tree.map(np.asarray, state.trained))
        elements = (spoil(step, element) for step, element in enumerate(elements, more["first"] + 1))
        return taken(state, train_step, elements, rows, **more)

    monkeypatch.setattr(stage_run, "train_steps", poison)
    train_curriculum(tiny_run(tiny_corpus, *ROLLBACK, "stages.align.steps=4"), tmp_path)
    assert len(spoilt) == 2
    jax.tree.map(np.testing.assert_array_equal, *spoilt)
    assert ["skipped" in line for line in read_metrics(tmp_path / "metrics.jsonl")] == [False, True, False, False]
