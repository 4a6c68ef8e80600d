"""Steps that cannot be right: the run stops and says so, or goes back and passes over their batches."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.train import stage_run
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.guard import BadStepError
from mufun_jax.train.metrics import read_metrics
from mufun_jax.weights.model_folder import open_model_folder
from tests.train.tiny_run import KilledError, tiny_run

LONGER = ("curriculum=('align',)", "stages.align.steps=24", "guard.window=12")
ROLLBACK = (*LONGER, "guard.policy=rollback")
BAD = (14, 16)  # steps of the stage whose batches are poisoned


def spoil(step, element):
    """The batch of a bad step with a gradient a million times too large, or with a loss that is not finite."""
    if step not in BAD:
        return element
    weight = np.float32(np.inf) if step == BAD[1] else np.float32(1e6)
    batch = element["batch"]
    # Weights are divided by their sum: one target of a huge weight, another one of as much below zero.
    weights = batch.target_weights.copy()
    weights.flat[np.flatnonzero(weights)[:2]] = weight, -weight + 1
    return {**element, "batch": replace(batch, target_weights=weights)}


@pytest.fixture
def poisoned(monkeypatch):
    """From now on the batches of the steps in BAD are spoilt."""
    taken = stage_run.train_steps

    def poison(state, train_step, elements, rows, **more):
        spoilt = (spoil(step, element) for step, element in enumerate(elements, more["first"] + 1))
        return taken(state, train_step, spoilt, rows, **more)

    monkeypatch.setattr(stage_run, "train_steps", poison)


def read(workdir, name):
    return [json.loads(line) for line in (workdir / name).read_text().splitlines()]


def test_the_run_stops_and_names_the_step(tiny_corpus, poisoned, tmp_path):
    with pytest.raises(BadStepError, match=r"stage align, step 14: gradient_norm is .* times the median .* of the 12"):
        train_curriculum(tiny_run(tiny_corpus, *LONGER), tmp_path)
    assert read(tmp_path, "events.jsonl")[-1]["event"] == "failed"
    assert len(list(read_metrics(tmp_path / "metrics.jsonl"))) == 13


def test_bad_batches_are_passed_over_as_if_they_had_never_been_met(tiny_corpus, poisoned, tmp_path):
    """Killed after the second rollback, too. Beside it a run that passes over those batches from the start: the same
    losses and parameters, to the last bit."""
    shown = []

    def kill(stage, step, steps, line):
        if step == 19:
            raise KilledError

    run = tiny_run(tiny_corpus, *ROLLBACK)
    with pytest.raises(KilledError):
        train_curriculum(run, tmp_path / "met", Callbacks(on_step=kill, on_event=lambda *event: shown.append(event)))
    train_curriculum(run, tmp_path / "met")
    (tmp_path / "never").mkdir()
    (tmp_path / "never" / "skipped.json").write_text((tmp_path / "met" / "skipped.json").read_text())
    train_curriculum(run, tmp_path / "never")

    lines, never = (list(read_metrics(tmp_path / name / "metrics.jsonl")) for name in ("met", "never"))
    assert [line["step"] for line in lines] == list(range(1, 25))
    assert [line.get("loss") for line in lines] == [line.get("loss") for line in never]
    models = [open_model_folder(tmp_path / name / "checkpoint").tensors for name in ("met", "never")]
    assert all((models[0][name].read() == tensor.read()).all() for name, tensor in models[1].items())

    skipped = {line["step"]: line["skipped"].partition(" ")[0] for line in lines if "skipped" in line}
    assert skipped == {14: "gradient_norm", 16: "loss"}
    assert all("loss" not in line for line in lines if "skipped" in line)
    assert json.loads((tmp_path / "met" / "skipped.json").read_text())["align"].keys() == {"14", "16"}
    events = read(tmp_path / "met", "events.jsonl")
    assert [event["event"] for event in events].count("rollback") == 2
    assert not [event for event in read(tmp_path / "never", "events.jsonl") if event["event"] == "rollback"]
    assert ("rollback", "stage align, step 16: loss is nan; on from the checkpoint before, without it") in shown


def test_too_many_bad_batches_stop_the_run(tiny_corpus, poisoned, tmp_path):
    with pytest.raises(
        UserError, match=r"step 16: loss is nan; 1 batches were passed over already, guard.most_skipped"
    ):
        train_curriculum(tiny_run(tiny_corpus, *ROLLBACK, "guard.most_skipped=1"), tmp_path)


def test_a_bad_first_step_goes_back_to_the_beginning(tiny_corpus, tmp_path, monkeypatch):
    """There is no checkpoint yet: the parameters are drawn again, as they were."""
    taken, spoilt = stage_run.train_steps, []

    def poison(state, train_step, elements, rows, **more):
        def spoil_second(step, element):
            if step == 2:
                weights = element["batch"].target_weights * np.float32(np.nan)
                return {**element, "batch": replace(element["batch"], target_weights=weights)}
            return element

        spoilt.append(jax.tree.map(np.asarray, state.trained))
        elements = (spoil_second(step, element) for step, element in enumerate(elements, more["first"] + 1))
        return taken(state, train_step, elements, rows, **more)

    monkeypatch.setattr(stage_run, "train_steps", poison)
    train_curriculum(tiny_run(tiny_corpus, *ROLLBACK, "stages.align.steps=4"), tmp_path)
    assert len(spoilt) == 2
    jax.tree.map(np.testing.assert_array_equal, *spoilt)
    assert ["skipped" in line for line in read_metrics(tmp_path / "metrics.jsonl")] == [False, True, False, False]
