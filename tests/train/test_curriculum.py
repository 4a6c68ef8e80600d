import json
import math

import jax
import numpy as np
import pytest

from mufun_jax.errors import CheckpointError, ConfigError, ManifestError
from mufun_jax.train import stage_run
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.guard import BadStepError
from mufun_jax.train.metrics import read_metrics
from mufun_jax.weights.model_folder import load_model, open_model_folder
from tests.train.tiny_run import KilledError, tiny_run


@pytest.fixture(scope="module")
def undisturbed(tiny_corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    train_curriculum(tiny_run(tiny_corpus), workdir)
    return workdir


def losses(workdir):
    return [(line["global_step"], line["stage"], line["loss"]) for line in read_metrics(workdir / "metrics.jsonl")]


def parameters(workdir):
    from mufun_jax.sharding.mesh import inference_mesh

    return load_model(workdir / "checkpoint", inference_mesh(), "float32").params


def test_stages_run_in_the_order_of_the_curriculum(tiny_corpus, tmp_path):
    run = tiny_run(tiny_corpus)
    summaries = []
    train_curriculum(run, tmp_path, Callbacks(on_stage=summaries.append))
    assert [summary.name for summary in summaries] == ["warmup", "align", "long"]
    assert [line[0] for line in losses(tmp_path)] == list(range(1, 1 + sum(s.steps for s in summaries)))
    connector, everything = summaries[0].trainable, summaries[1].trainable
    params = parameters(tmp_path)
    assert connector == sum(leaf.size for leaf in jax.tree.leaves(params["connector"]))
    assert everything == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert summaries[1].loss_end < summaries[1].loss_start


# Kills: in the first stage, right at its end, in the middle of the second between saves, in the last.
@pytest.mark.parametrize("kill_after", [1, 3, 6, 10])
def test_a_killed_run_goes_on_bit_for_bit(tiny_corpus, undisturbed, tmp_path, kill_after):
    def kill(stage, step, steps, metrics):
        if sum(1 for _ in read_metrics(tmp_path / "metrics.jsonl")) == kill_after:
            raise KilledError

    with pytest.raises(KilledError):
        train_curriculum(tiny_run(tiny_corpus), tmp_path, Callbacks(on_step=kill))
    train_curriculum(tiny_run(tiny_corpus), tmp_path)
    assert losses(tmp_path) == losses(undisturbed)
    jax.tree.map(np.testing.assert_array_equal, parameters(tmp_path), parameters(undisturbed))


def test_a_finished_run_is_not_trained_again(tiny_corpus, undisturbed):
    before = losses(undisturbed)
    params = parameters(undisturbed)
    steps = []
    train_curriculum(tiny_run(tiny_corpus), undisturbed, Callbacks(on_step=lambda *step: steps.append(step)))
    assert steps == []
    assert losses(undisturbed) == before
    jax.tree.map(np.testing.assert_array_equal, parameters(undisturbed), params)


def test_another_config_in_the_same_workdir_is_refused(tiny_corpus, undisturbed):
    changed = tiny_run(tiny_corpus, "stages.align.learning_rate=0.5")
    with pytest.raises(CheckpointError, match=r"stages.align.learning_rate: 0.01 is not 0.5"):
        train_curriculum(changed, undisturbed)


def test_frozen_parts_do_not_change_by_a_bit(tiny_corpus, tmp_path):
    from mufun_jax.sharding.mesh import make_mesh
    from mufun_jax.weights.params import init_params

    run = tiny_run(tiny_corpus, "curriculum=('warmup',)")
    train_curriculum(run, tmp_path)
    before = jax.tree.map(np.asarray, init_params(run.model, make_mesh(run.mesh), run.seed))
    after = jax.tree.map(np.asarray, parameters(tmp_path))
    for part in ("encoder", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, after[part], before[part])
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after["connector"], before["connector"])
    assert all(change > 0 for change in jax.tree.leaves(moved))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tiny_corpus, tmp_path):
    with pytest.raises(BadStepError, match=r"stage align, step \d+: (loss|gradient_norm) is (nan|inf)"):
        train_curriculum(tiny_run(tiny_corpus, "stages.align.learning_rate=1e38", "curriculum=('align',)"), tmp_path)
    assert all(math.isfinite(line["loss"]) for line in read_metrics(tmp_path / "metrics.jsonl"))


def test_metrics_say_what_was_used_and_dropped(tiny_corpus, undisturbed):
    lines = list(read_metrics(undisturbed / "metrics.jsonl"))
    for line in lines:
        assert 0 < line["positions_used"] <= 1
        assert 0 < line["windows_used"] <= 1
        assert line["examples"] >= 1
        assert line["target_tokens"] > 0
        assert line["data_wait_seconds"] >= 0
    # A step's wait is for its own batch, its seconds are from the step before: only their sums are of one time.
    assert sum(line["seconds"] for line in lines) >= sum(line["data_wait_seconds"] for line in lines)
    # The tiny corpus's songs are of 5 windows and the rows of the stage `long` hold 4.
    dropped = {line["stage"]: line["dropped_windows"] for line in read_metrics(undisturbed / "metrics.jsonl")}
    assert dropped["long"] > 0
    assert dropped["align"] == 0


def test_errors_before_anything_is_trained(tiny_corpus, tmp_path):
    with pytest.raises(ManifestError, match="nothing is no prepared set; there are: notes, songs"):
        train_curriculum(tiny_run(tiny_corpus, "stages.warmup.mixture={'nothing': 1.0}"), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"tokenizer has 512 tokens, model.decoder.vocab_size is 100"):
        train_curriculum(tiny_run(tiny_corpus, "model.decoder.vocab_size=100"), tmp_path / "b")
    with pytest.raises(ConfigError, match=r"= 1 devices, but 2 are here"):
        train_curriculum(tiny_run(tiny_corpus, "mesh.data=1"), tmp_path / "c")


def test_stages_with_the_same_trained_parts_share_one_program(tiny_corpus, tmp_path, monkeypatch):
    compiled = []
    original = stage_run.compile_train_step
    monkeypatch.setattr(stage_run, "compile_train_step", lambda *args: compiled.append(args) or original(*args))
    train_curriculum(tiny_run(tiny_corpus), tmp_path)
    assert len(compiled) == 2


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"global_step": 1}) + '\n{"global_step": 2, "lo')
    assert list(read_metrics(path)) == [{"global_step": 1}]


def test_a_run_begins_from_a_model_and_its_card_says_so(tiny_corpus, undisturbed, tmp_path):
    """At a learning rate of nearly nothing, what comes out is what went in; the stages are added to its history."""
    start = undisturbed / "checkpoint"
    settings = ("curriculum=('align',)", "stages.align.steps=1", "stages.align.learning_rate=1e-30")
    run = tiny_run(tiny_corpus, f"initial_model={start}", *settings)
    loaded = []
    train_curriculum(run, tmp_path, Callbacks(on_load=lambda *call: loaded.append(call)))
    assert loaded[-1][0] == loaded[-1][1] == 4 * sum(leaf.size for leaf in jax.tree.leaves(parameters(tmp_path)))
    jax.tree.map(np.testing.assert_array_equal, parameters(tmp_path), parameters(undisturbed))
    origin = open_model_folder(tmp_path / "checkpoint").config.origin
    assert [stage.name for stage in origin.stages] == ["warmup", "align", "long", "align"]
    assert origin.stages[-1].mixture == {"notes": 3.0, "songs": 1.0}
    assert origin.stages[0].trained_parts == ("connector",)


def test_a_model_of_other_sizes_is_no_start(tiny_corpus, undisturbed, tmp_path):
    run = tiny_run(tiny_corpus, f"initial_model={undisturbed / 'checkpoint'}", "model.decoder.layers=3")
    with pytest.raises(ConfigError, match=r"initial_model .* is another model .*: decoder.layers: 2 is not 3"):
        train_curriculum(run, tmp_path)
    with pytest.raises(CheckpointError, match="no model here"):
        train_curriculum(tiny_run(tiny_corpus, f"initial_model={tmp_path / 'nowhere'}"), tmp_path)


def test_what_could_not_be_replaced_at_the_end_is_found_at_the_start(tiny_corpus, tmp_path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "thesis.tex").write_text("")
    steps = []
    with pytest.raises(CheckpointError, match=r"holds thesis.tex"):
        train_curriculum(tiny_run(tiny_corpus), tmp_path, Callbacks(on_step=lambda *step: steps.append(step)))
    assert steps == []
