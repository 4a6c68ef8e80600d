"""Arms that hear so much of each song: their configs, and stages that are trained once for all."""

import json
from dataclasses import replace

import pytest

from mufun_jax.config_file import load_run_config
from mufun_jax.errors import UserError
from mufun_jax.experiment import trained_arms
from mufun_jax.experiment.context_length import LENGTHS, ContextLength, heard_for
from mufun_jax.experiment.experiment import Options
from mufun_jax.experiment.trained_arms import train_arms
from mufun_jax.train.guard import BadStepError
from tests.experiment.test_trained_arms import ignore
from tests.train.tiny_run import tiny_run


@pytest.fixture(scope="module")
def run():
    return load_run_config("configs/nano_long.py")


@pytest.mark.parametrize(("seconds", "windows", "positions"), [(390, 130, 4224), (240, 80, 2724), (30, 10, 624)])
def test_an_arm_hears_so_much_and_has_as_much_room_for_text(run, seconds, windows, positions):
    arm = heard_for(run, seconds)
    assert arm.model == replace(run.model, max_windows=windows)
    stage = arm.stages["structure"]
    assert (stage.windows, stage.positions, stage.longest_audio) == (windows, positions, seconds)
    assert stage.positions - 30 * stage.windows == 4224 - 30 * 130
    assert (stage.rows, stage.steps) == (run.stages["structure"].rows, run.stages["structure"].steps)
    assert {name: arm.stages[name] for name in run.curriculum[:-1]} == {
        name: run.stages[name] for name in run.curriculum[:-1]
    }


def test_a_row_of_several_songs_is_cut_by_each(run):
    stage = replace(run.stages["structure"], windows=40, positions=2000, longest_audio=60.0)
    arm = heard_for(replace(run, stages=run.stages | {"structure": stage}), 30).stages["structure"]
    assert (arm.windows, arm.positions) == (20, 2000 - 20 * 30)


def test_a_model_that_hears_less_is_refused(run, tmp_path):
    shorter = run.stages | {"structure": replace(run.stages["structure"], longest_audio=360.0)}
    short = replace(run, model=replace(run.model, max_windows=120), stages=shorter)
    with pytest.raises(UserError, match="the config's model hears 360 s, less than 390 s"):
        ContextLength().run(tmp_path, Options(short), ignore)


@pytest.fixture
def trained(monkeypatch):
    """In the place of training: what was trained, by seed, stages, and the model begun from."""
    runs = []

    def train(run, folder, callbacks):
        runs.append((run.seed, run.curriculum, run.initial_model))
        folder.mkdir(parents=True)
        lines = []
        for number in range(1, sum(run.stages[name].steps for name in run.curriculum) + 1):
            line = {"stage": run.curriculum[0], "step": number, "global_step": number, "loss": 1.0, "seconds": 1.0}
            lines.append(line | {"learning_rate": 0.1, "gradient_norm": 1.0})
            callbacks.on_step(run.curriculum[0], number, number, lines[-1])
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder / "checkpoint"

    monkeypatch.setattr(trained_arms, "train_curriculum", train)
    return runs


def test_shared_stages_are_trained_once_a_seed(tiny_corpus, trained, tmp_path):
    run, notes = tiny_run(tiny_corpus), []
    longer = replace(run, stages=run.stages | {"long": replace(run.stages["long"], steps=5)})
    options = Options(run, seeds=(0, 1))
    arms = {"as it is": run, "longer": longer}
    shared = ("warmup", "align")
    tell = lambda *said: notes.append(said)  # noqa: E731
    found = train_arms(tmp_path, arms, options, tell, scored=False, shared=shared)
    assert [(each.arm, each.seed, len(each.steps)) for each in found] == [
        ("as it is", 0, 3),
        ("longer", 0, 5),
        ("as it is", 1, 3),
        ("longer", 1, 5),
    ]
    starts = [str(tmp_path / "arms" / "shared_stages" / f"seed_{seed}" / "run" / "checkpoint") for seed in (0, 1)]
    assert trained == [
        (0, shared, None),
        (0, ("long",), starts[0]),
        (0, ("long",), starts[0]),
        (1, shared, None),
        (1, ("long",), starts[1]),
        (1, ("long",), starts[1]),
    ]
    assert [done for done, *_ in notes] == sorted(done for done, *_ in notes)
    assert notes[-1][:2] == (600, 600)
    assert train_arms(tmp_path, arms, options, ignore, scored=False, shared=shared) == found
    assert len(trained) == 6, "nothing is trained again"
    other = replace(run, stages=run.stages | {"align": replace(run.stages["align"], steps=4)})
    with pytest.raises(UserError, match=r"measured on something else \(run\.stages\.align\.steps: 6 is not 4\)"):
        train_arms(tmp_path, {"as it is": other}, options, ignore, scored=False, shared=shared)


def test_shared_stages_that_cannot_be_right_end_it(tiny_corpus, tmp_path, monkeypatch):
    def train(run, folder, callbacks):
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("")
        raise BadStepError("warmup", 2, "the loss is nan", "")

    monkeypatch.setattr(trained_arms, "train_curriculum", train)
    run = tiny_run(tiny_corpus)
    with pytest.raises(UserError, match=r"the stages that all arms share, seed 0: .* loss is nan"):
        train_arms(tmp_path, {"one": run}, Options(run), ignore, scored=False, shared=("warmup",))


def test_arms_are_the_paper_s_length_and_parts_of_it():
    assert list(LENGTHS.values()) == [390, 240, 120, 30]
    assert list(ContextLength.arms) == list(LENGTHS)
