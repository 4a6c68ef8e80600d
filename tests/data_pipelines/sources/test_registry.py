"""All data sets together: names, the table of the documentation, and the mixtures of the stages."""

import importlib

import pytest

from configs.mixtures import MIXTURES
from data_pipelines.questions import TASKS as ASKED
from data_pipelines.sources.registry import DATA_SETS, find_data_set
from data_pipelines.sources.table import TASKS, data_set_table
from mufun_jax.errors import ManifestError

WHOLE_SONGS = {"dali", "medleydb", "mtg_jamendo", "salami"}
TRANSCRIPTIONS = {"lyrics", "notes", "chords"}
STAGES = ["warmup", "align1", "align2", "context_extend", "finetune_short", "finetune_long"]


def test_names():
    assert list(DATA_SETS) == sorted(DATA_SETS)
    assert {name: data_set.name for name, data_set in DATA_SETS.items()} == {name: name for name in DATA_SETS}
    assert {
        "ballroom", "dali", "dali_lines", "fma", "giantsteps_key", "groove", "gtzan", "guitarset",
        "guitarset_transcription", "magnatagatune", "medleydb", "mtg_jamendo", "musiccaps", "nsynth", "salami",
    } == set(DATA_SETS)  # fmt: skip
    for data_set in DATA_SETS.values():
        assert data_set.url.startswith(("https://", "http://")) and "\n" not in data_set.layout + data_set.splits


def test_a_misspelt_name_is_answered_with_the_nearest():
    assert find_data_set("salami") is DATA_SETS["salami"]
    with pytest.raises(
        ManifestError, match=r"no data set 'guitar_set' \(did you mean 'guitarset'\?\); there are ballroom"
    ):
        find_data_set("guitar_set")


@pytest.mark.parametrize("name", DATA_SETS)
def test_tasks_are_those_of_the_reader_and_have_questions(name):
    assert set(TASKS[name]) <= set(ASKED)
    module = importlib.import_module(DATA_SETS[name].read.__module__)
    assert module.__file__ is not None
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    assert all(f'"{task}"' in source for task in TASKS[name])


def test_every_stage_has_a_mixture_of_known_sets():
    assert list(MIXTURES) == STAGES
    for stage, mixture in MIXTURES.items():
        assert mixture and set(mixture) <= set(DATA_SETS), stage
        assert all(weight > 0 for weight in mixture.values())
        assert list(mixture) == sorted(mixture)
    assert set().union(*MIXTURES.values()) == set(DATA_SETS), "every set is of use somewhere"


def test_what_the_stages_are_for():
    assert all(set(TASKS[name]) <= TRANSCRIPTIONS for name in MIXTURES["warmup"])
    for stage in ("context_extend", "finetune_long"):
        assert set(MIXTURES[stage]) <= WHOLE_SONGS
    for stage in ("warmup", "align1", "align2", "finetune_short"):
        assert not set(MIXTURES[stage]) & (WHOLE_SONGS - {"mtg_jamendo"}), "answers about more than a minute"
    taught = {task for name in MIXTURES["finetune_short"] for task in TASKS[name]}
    assert {"genre", "key", "tempo", "pitch", "chords", "lyrics", "caption", "instruments"} <= taught


def test_the_table():
    lines = data_set_table({"first": {"gtzan": 1.0}, "second": {"gtzan": 2.0, "nsynth": 1.0}}).splitlines()
    assert lines[:2] == [
        "| data set | hours | labels | licence | splits | stages |",
        "| --- | ---: | --- | --- | --- | --- |",
    ]
    assert len(lines) == 2 + len(DATA_SETS)
    cells = {line.split("`")[1]: [cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]}
    assert list(cells) == list(DATA_SETS)
    gtzan = DATA_SETS["gtzan"]
    assert cells["gtzan"] == [
        f"[`gtzan`]({gtzan.url})", "8.3", "genre, tempo, key", gtzan.licence, gtzan.splits, "`first`, `second`",
    ]  # fmt: skip
    assert cells["nsynth"][-1] == "`second`" and cells["fma"][-1] == "none"
