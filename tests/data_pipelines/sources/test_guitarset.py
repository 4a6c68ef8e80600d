import json

import pytest

from data_pipelines.sources.guitarset import GUITARSET, GUITARSET_TRANSCRIPTION, STYLES, chord_name
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

COMP, SOLO = "00_BN1-129-Eb_comp", "05_SS3-98-C#_solo"


def annotation(namespace: str, *observed: tuple[float, float, object]) -> dict:
    data = [{"time": t, "duration": d, "value": value, "confidence": None} for t, d, value in observed]
    return {"annotation_metadata": {"data_source": "0"}, "namespace": namespace, "data": data}


INSTRUCTED = annotation("chord", (0, 2, "D#:maj"), (2, 2, "D#:maj"), (4, 2, "N"), (6, 2, "A#:min7"), (8, 2, "E:hdim7"))
PERFORMED = annotation("chord", (0, 2, "C:maj/5"))
STRINGS = (
    annotation("note_midi", (0.5, 0.2, 60.04), (10.0, 0.2, 63.9)),
    annotation("note_midi", (0.1, 0.2, 58.6)),
    annotation("note_midi"),
)
FRETS = {"namespace": "pitch_contour", "data": {"time": [], "value": []}}


def write_jams(folder, name, *annotations):
    write_text(folder / f"annotation/{name}.jams", json.dumps({"annotations": annotations, "file_metadata": {}}))


@pytest.fixture
def folder(tmp_path):
    key, tempo = annotation("key_mode", (0, 22, "D#:major")), annotation("tempo", (0, 22, 128.6))
    write_jams(tmp_path, COMP, FRETS, INSTRUCTED, PERFORMED, key, tempo, *STRINGS)
    write_jams(tmp_path, SOLO, INSTRUCTED, PERFORMED, *STRINGS)
    for name in (COMP, SOLO):
        write_tone(tmp_path / f"audio_mono-mic/{name}_mic.wav")
    return tmp_path


def test_reads_the_excerpts(folder):
    clips = read_checked(GUITARSET, folder)
    assert list(clips) == [f"guitarset-{COMP}", f"guitarset-{SOLO}"]
    comp, solo = clips.values()
    assert (comp.audio, comp.split, comp.time) == (f"audio_mono-mic/{COMP}_mic.wav", "train", None)
    assert answers(comp) == {
        "style": ("bossa nova",),
        "tempo": ("129",),
        "key": ("Eb major",),
        "chords": ("Eb, Bbm7, Em7b5",),
    }
    assert solo.split == "test"
    assert answers(solo) == {"style": ("singer-songwriter",), "tempo": ("98",)}, "the chords are not what is played"
    assert comp.labels[0].pool == STYLES and len(STYLES) == 5
    assert GUITARSET.licence == "CC BY 4.0"


def test_transcriptions_only(folder):
    clips = read_checked(GUITARSET_TRANSCRIPTION, folder)
    assert {name: (clip.time, answers(clip)) for name, clip in clips.items()} == {
        f"guitarset_transcription-{COMP}": (None, {"chords": ("Eb, Bbm7, Em7b5",)}),
        f"guitarset_transcription-{SOLO}-0": ((0.0, 10.0), {"notes": ("B3 C4",)}),
        f"guitarset_transcription-{SOLO}-1": ((10.0, 20.0), {"notes": ("E4",)}),
    }


def test_players_split(folder):
    for player in ("01", "04"):
        write_jams(folder, f"{player}_Jazz2-187-F#_comp", INSTRUCTED)
    splits = {clip.id: clip.split for clip in GUITARSET.read(folder)}
    assert splits["guitarset-01_Jazz2-187-F#_comp"] == "train"
    assert splits["guitarset-04_Jazz2-187-F#_comp"] == "validation"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("C:maj", "C"),
        ("C#:min", "C#m"),
        ("G:7", "G7"),
        ("F:maj7/3", "Fmaj7"),
        ("Ab", "Ab"),
        ("N", None),
        ("B:sus4", "Bsus4"),
    ],
)
def test_chord_names(written, name):
    assert chord_name(written) == name


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([annotation("chord", (0, 1, "H:maj"))], "'H:maj' is no chord"),
        ([annotation("tempo", (0, 1, "fast"))], "'fast' is no tempo"),
        ([{"namespace": "chord", "data": {"time": [0]}}], "annotation 1: its data is no list"),
        ([{"data": []}], "annotation 1: has no namespace"),
        (3, "annotation 1: has no namespace"),
    ],
)
def test_bad_annotations_are_named(folder, annotations, message):
    write_text(folder / f"annotation/{COMP}.jams", json.dumps({"annotations": annotations}))
    with pytest.raises(ManifestError, match=rf"00_BN1-129-Eb_comp\.jams.*{message}"):
        list(GUITARSET.read(folder))


@pytest.mark.parametrize("note", [(0, 1, None), (0, 1, 10**400), (-1, 1, 60), (0, 1, 128), (float("nan"), 1, 60)])
def test_bad_notes_are_named(folder, note):
    write_jams(folder, SOLO, annotation("note_midi", note))
    with pytest.raises(ManifestError, match=r"05_SS3.*a note without a time and a MIDI pitch"):
        list(GUITARSET_TRANSCRIPTION.read(folder))


def test_other_files_and_folders_are_refused(folder):
    for text, message in (("{", "not JSON"), ("[]", "holds no annotations"), ("{}", "holds no annotations")):
        write_text(folder / f"annotation/{COMP}.jams", text)
        with pytest.raises(ManifestError, match=message):
            list(GUITARSET.read(folder))
    write_text(folder / "annotation/00_song.jams", "{}")
    (folder / f"annotation/{COMP}.jams").unlink()
    with pytest.raises(ManifestError, match=r"00_song\.jams: a file of GuitarSet is named like"):
        list(GUITARSET.read(folder))
    with pytest.raises(ManifestError, match=r"holds no annotation/\*\.jams"):
        list(GUITARSET.read(folder / "annotation"))
