"""What is saved when, which saves stay, and what may change between a save and a restore."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from mufun_jax.config import CheckpointConfig
from mufun_jax.errors import CheckpointError
from mufun_jax.train import checkpoint as checkpoint_module
from mufun_jax.train.checkpoint import Checkpoints, list_steps
from mufun_jax.train.checkpoint_list import list_checkpoints
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.metrics import read_metrics
from tests.train.tiny_run import KilledError, tiny_run


def run_until(run, workdir: Path, last: int) -> None:
    def kill(stage, step, steps, line):
        if line["global_step"] == last:
            raise KilledError

    with pytest.raises(KilledError):
        train_curriculum(run, workdir, Callbacks(on_step=kill))


def steps_kept(workdir: Path) -> list[int]:
    return list_steps(workdir / "checkpoints")


def test_the_newest_the_round_ones_the_best_and_the_ends_of_stages_stay(tiny_corpus, tmp_path):
    """Stages end at 3, 9 and 12. Saved at all even steps and the ends, evaluated at 4, 8 and 12 and the ends."""
    rules = ("checkpoint.every_steps=2", "checkpoint.keep=1", "checkpoint.keep_every=10", "checkpoint.keep_best=1")
    evaluation = "evaluation={'mixture': {'songs': 1.0}, 'every_steps': 4, 'batches': 1}"
    run = tiny_run(tiny_corpus, *rules, evaluation, "stages.long.learning_rate=1.0")  # the last stage makes it worse
    train_curriculum(run, tmp_path)
    lines = {line["global_step"]: line.get("evaluation_loss") for line in read_metrics(tmp_path / "metrics.jsonl")}
    evaluated = {step: loss for step, loss in lines.items() if loss is not None}
    assert list(evaluated) == [3, 4, 8, 9, 12]
    assert len(set(evaluated.values())) == 5
    best = min(evaluated, key=lambda step: evaluated[step])
    assert steps_kept(tmp_path) == sorted({3, 9, 12, 10, best})
    assert best in (4, 8, 9)
    listed = {one.global_step: one for one in list_checkpoints(tmp_path)}
    assert listed[9].evaluation_loss == evaluated[9] and listed[10].evaluation_loss is None


def test_an_evaluation_is_of_the_same_batches_and_of_no_training(tiny_corpus, tmp_path):
    """With a learning rate of nearly nothing it says the same each time; with it or without, training is the same."""
    still = ("curriculum=('align',)", "stages.align.learning_rate=1e-30")
    evaluation = "evaluation={'mixture': {'songs': 1.0, 'notes': 1.0}, 'every_steps': 2, 'batches': 2}"
    train_curriculum(tiny_run(tiny_corpus, *still, evaluation), tmp_path / "still")
    found = [line.get("evaluation_loss") for line in read_metrics(tmp_path / "still" / "metrics.jsonl")]
    assert found[0] is None and found[1] == found[3] == found[5] and 4 < (found[1] or 0) < 9
    for name, more in (("with", (evaluation,)), ("without", ())):
        train_curriculum(tiny_run(tiny_corpus, "curriculum=('align',)", *more), tmp_path / name)
    losses = [
        [line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("with", "without")
    ]
    assert losses[0] == losses[1]


def test_minutes_count_too(tmp_path, monkeypatch):
    clock = 0.0
    monkeypatch.setattr(checkpoint_module.time, "monotonic", lambda: clock)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(every_steps=100, every_minutes=2.0), lambda *_, **__: None)
    assert [checkpoints.due(step) for step in (99, 100, 101)] == [False, True, False]
    clock = 119.0
    assert not checkpoints.due(7)
    clock = 121.0
    assert checkpoints.due(7)
    checkpoints.close()


def test_a_run_goes_on_in_another_dtype(tiny_corpus, tmp_path, monkeypatch):
    """Compute and parameters. What is restored is the float32 weights that were saved."""
    align = "curriculum=('align',)"
    run_until(tiny_run(tiny_corpus, align), tmp_path, 5)
    before = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert [one.global_step for one in list_checkpoints(tmp_path)] == [4]
    seen = []
    original = Checkpoints.restore

    def restore(self, position, like):
        found = original(self, position, like)
        seen.extend(str(leaf.dtype) for leaf in jax.tree.leaves((found["weights"], found["frozen"])))
        return found

    monkeypatch.setattr(Checkpoints, "restore", restore)
    train_curriculum(tiny_run(tiny_corpus, align, "compute_dtype=bfloat16", "param_dtype=bfloat16"), tmp_path)
    assert set(seen) == {"float32"}
    after = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert after[:4] == before[:4]
    assert after[4] != before[4] and np.allclose(after[4], before[4], rtol=0.02)


def test_what_changes_the_computation_may_not_change(tiny_corpus, tmp_path):
    align = "curriculum=('align',)"
    run_until(tiny_run(tiny_corpus, align), tmp_path, 5)
    for setting, key in (("seed=1", "seed: 0 is not 1"), ("optimizer.b1=0.5", "optimizer.b1: 0.9 is not 0.5")):
        with pytest.raises(CheckpointError, match=key):
            train_curriculum(tiny_run(tiny_corpus, align, setting), tmp_path)
    train_curriculum(tiny_run(tiny_corpus, align, "checkpoint.keep=5", "guard.window=7"), tmp_path)


def test_the_command_lists_them_and_says_what_is_wrong(tiny_corpus, tmp_path, run):
    run_until(tiny_run(tiny_corpus), tmp_path, 5)
    code, out, _ = run("checkpoints", tmp_path)
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("3", "4"))]
    assert [row[:3] for row in rows] == [["3", "warmup,", "3"], ["4", "align,", "1"]]
    assert all(row[-1] == "yes" for row in rows)
    (tmp_path / "checkpoints" / "4" / "meta" / "metadata").write_bytes(b"\x00")
    code, out, _ = run("checkpoints", tmp_path, "--json")
    listed = json.loads(out)
    assert code == 1
    assert [one["verifies"] for one in listed] == [True, False]
    assert "meta/metadata has 1 bytes, of " in listed[1]["fault"] and listed[0]["size"] > 1000
    for seal in (tmp_path / "checkpoints" / "3").glob("seal-*"):
        seal.unlink()
    code, out, _ = run("checkpoints", tmp_path)
    assert code == 1 and "not sealed" in out and "step 4: meta/metadata has 1 bytes" in out
    code, _, err = run("checkpoints", tmp_path / "nowhere")
    assert code == 2 and "no checkpoints are here; give the --workdir of `mufun train`" in err


def test_a_checkpoint_of_an_earlier_version_is_refused_and_left_where_it_is(tiny_corpus, tmp_path):
    meta = tmp_path / "checkpoints" / "7" / "meta" / "metadata"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"format": 3, "stage": "align", "step": 4, "data": {}, "config": {}}))
    with pytest.raises(CheckpointError, match=r"checkpoint format 3, this reads 4"):
        train_curriculum(tiny_run(tiny_corpus), tmp_path)
    assert meta.is_file() and not (tmp_path / "damaged").exists()


@pytest.mark.parametrize("error", [MemoryError("RESOURCE_EXHAUSTED"), RuntimeError("whatever")], ids=str)
def test_a_whole_checkpoint_that_cannot_be_read_just_now_is_not_put_aside(tiny_corpus, tmp_path, monkeypatch, error):
    run_until(tiny_run(tiny_corpus, "curriculum=('align',)"), tmp_path, 5)

    def fail(*_, **__):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr("orbax.checkpoint.CheckpointManager.restore", fail)
        with pytest.raises(type(error), match=str(error)):
            train_curriculum(tiny_run(tiny_corpus, "curriculum=('align',)"), tmp_path)
    assert steps_kept(tmp_path) == [4] and not (tmp_path / "damaged").exists()
