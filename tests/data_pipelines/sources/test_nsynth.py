import json

import pytest

from data_pipelines.sources.nsynth import FAMILIES, NOTES, NSYNTH, QUALITIES, SOURCES
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone


def note(pitch=60, family="synth_lead", source="synthetic", qualities=("bright", "nonlinear_env", "fast_decay")):
    return {
        "pitch": pitch,
        "velocity": 100,
        "instrument_family_str": family,
        "instrument_source_str": source,
        "qualities_str": list(qualities),
    }


@pytest.fixture
def folder(tmp_path):
    tables = {
        "nsynth-train": {"synth_lead_synthetic_011-060-100": note(), "bass_electronic_018-022-100": note(22, "bass")},
        "nsynth-valid": {"flute_acoustic_002-069-050": note(69, "flute", "acoustic", ())},
        "nsynth-test": {"reed_acoustic_037-061-025": note(61, "reed", "acoustic", ("long_release",))},
    }
    for name, notes in tables.items():
        write_text(tmp_path / name / "examples.json", json.dumps(notes))
        for stem in notes:
            write_tone(tmp_path / name / "audio" / f"{stem}.wav")
    return tmp_path


def test_reads_the_folders(folder):
    clips = read_checked(NSYNTH, folder)
    assert [clip.split for clip in clips.values()] == ["train", "train", "validation", "test"]
    assert next(iter(clips)) == "nsynth-bass_electronic_018-022-100", "by name"
    lead = clips["nsynth-synth_lead_synthetic_011-060-100"]
    assert lead.audio == "nsynth-train/audio/synth_lead_synthetic_011-060-100.wav"
    assert answers(lead) == {
        "instrument": ("synth lead",),
        "pitch": ("C4",),
        "source": ("synthetic",),
        "quality": ("bright", "nonlinear envelope", "fast decay"),
    }
    assert [label.pool for label in lead.labels] == [FAMILIES, NOTES, SOURCES, QUALITIES]
    assert answers(clips["nsynth-flute_acoustic_002-069-050"]) == {
        "instrument": ("flute",),
        "pitch": ("A4",),
        "source": ("acoustic",),
    }
    assert answers(clips["nsynth-reed_acoustic_037-061-025"])["quality"] == ("long release",)


def test_one_split_is_enough_and_none_is_not(folder):
    for name in ("nsynth-train", "nsynth-valid"):
        (folder / name / "examples.json").unlink()
    assert [clip.split for clip in NSYNTH.read(folder)] == ["test"]
    with pytest.raises(ManifestError, match="holds no nsynth-train, nsynth-valid or nsynth-test"):
        list(NSYNTH.read(folder / "nsynth-train"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be a JSON object of notes, not list"),
        ('{"a": 3}', "note a: has no pitch"),
        (json.dumps({"a": note() | {"pitch": 128}}), "note a: pitch must be a MIDI number from 0 to 127, not 128"),
        (json.dumps({"a": note() | {"pitch": True}}), "not True"),
        (json.dumps({"a": note(family="harp")}), "note a: 'harp' is none of bass, brass"),
        (json.dumps({"a": note() | {"instrument_source_str": ["acoustic"]}}), "is none of acoustic, electronic"),
        (json.dumps({"a": note(qualities=["loud"])}), "note a: 'loud' is none of bright"),
        (json.dumps({"a": note() | {"qualities_str": "bright"}}), "note a: qualities_str must be a list"),
    ],
)
def test_a_bad_table_is_named(folder, text, message):
    write_text(folder / "nsynth-test/examples.json", text)
    with pytest.raises(ManifestError, match=rf"nsynth-test/examples\.json.*{message}"):
        list(NSYNTH.read(folder))
