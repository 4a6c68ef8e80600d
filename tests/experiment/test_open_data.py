"""Mixtures with parts replaced."""

from dataclasses import replace

import pytest

from mufun_jax.config_file import load_run_config
from mufun_jax.errors import UserError
from mufun_jax.experiment import open_data
from mufun_jax.experiment.experiment import Options
from mufun_jax.experiment.open_data import OpenData, parsed, with_replaced
from mufun_jax.experiment.outcome import Outcome
from tests.experiment.test_trained_arms import ignore


@pytest.fixture(scope="module")
def run():
    return load_run_config("configs/nano.py")


@pytest.fixture
def compared(monkeypatch):
    """In the place of training: the arms."""
    found = {}

    def compare(experiment, workdir, runs, options, tell, more, *, arms):
        found.update(runs=runs, arms=arms)
        return Outcome(experiment.name, experiment.question, "", {})

    monkeypatch.setattr(open_data, "compare_arms", compare)
    return found


def mixtures(run):
    return {name: dict(run.stages[name].mixture) for name in run.curriculum}


def test_a_share_goes_to_what_takes_its_place(run):
    replaced = with_replaced(run, "train_notes", "train_excerpts")
    assert mixtures(replaced) == {
        "warmup": {"train_transcription": 1.0},
        "align1": {"train_excerpts": 1.0},
        "align2": {"train_excerpts": 2.0},
        "context_extend": {"train_songs": 1.0},
        "finetune_short": {"train_excerpts": 3.0},
        "finetune_long": {"train_excerpts": 4.0, "train_songs": 1.0},
    }
    assert replace(replaced, stages=run.stages) == run


def test_what_is_left_out_leaves_its_share_to_the_others(run):
    assert mixtures(with_replaced(run, "train_excerpts", None))["finetune_long"] == {
        "train_notes": 2.0,
        "train_songs": 1.0,
    }
    with pytest.raises(UserError, match="stage context_extend has nothing else to train on"):
        with_replaced(run, "train_songs", None)
    with pytest.raises(UserError, match=r"--replace train_note: no stage draws on it \(did you mean 'train_notes'\?\)"):
        with_replaced(run, "train_note", "train_songs")


def test_what_is_replaced_is_read():
    assert parsed("a=b") == ("a", "b")
    assert parsed("a=") == ("a", None)
    for wrong in ("a", "=b", "a=a", ""):
        with pytest.raises(UserError, match="give OLD=NEW"):
            parsed(wrong)


def test_arms_are_what_is_asked_for(run, compared, tmp_path):
    OpenData().run(tmp_path, Options(run), ignore)
    assert list(compared["runs"]) == [
        "whole mixture",
        "train_notes by train_excerpts",
        "train_excerpts by train_notes",
        "train_songs by train_excerpts",
    ]
    assert list(compared["arms"]) == list(compared["runs"])
    assert compared["runs"]["whole mixture"] == run
    OpenData().run(
        tmp_path, Options(run, replacements=("train_excerpts=",), arms=("train_excerpts by nothing",)), ignore
    )
    assert list(compared["runs"]) == ["train_excerpts by nothing"]
    with pytest.raises(UserError, match=r"no arm 'whole mix' \(did you mean 'whole mixture'\?\); there are whole mix"):
        OpenData().run(tmp_path, Options(run, arms=("whole mix",)), ignore)


def test_another_config_says_what_it_draws_on(compared, tmp_path):
    full = load_run_config("configs/mufun_8b.py")
    with pytest.raises(UserError, match=r"say what is replaced: --replace OLD=NEW; the config draws on ballroom, dali"):
        OpenData().run(tmp_path, Options(full), ignore)
    OpenData().run(tmp_path, Options(full, replacements=("musiccaps=fma",)), ignore)
    assert list(compared["runs"]) == ["whole mixture", "musiccaps by fma"]
