import pytest

from data_pipelines.sources.medleydb import GENRES, INSTRUMENTS, MEDLEYDB, VOICES
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone


def metadata(track: str, artist: str, genre: str, instrumental: str, *stems: str) -> str:
    lines = "".join(
        f"  S{n:02d}:\n    component: ''\n    filename: {track}_STEM_{n:02d}.wav\n    instrument: {stem}\n"
        f"    raw:\n      R01:\n        filename: x.wav\n        instrument: kick drum\n"
        for n, stem in enumerate(stems, 1)
    )
    return (
        f"artist: {artist}\ngenre: {genre}\nhas_bleed: 'no'\ninstrumental: {instrumental}\n"
        f"mix_filename: {track}_MIX.wav\nstems:\n{lines}title: A Title\nversion: 1.2\nwebsite: []\n"
    )


OWL = metadata(
    "AClassicEducation_NightOwl", "A Classic Education", "Singer/Songwriter", "'no'",
    "electric bass", "drum set", "male singer", "Main System", "[male singer, violin section]", "violin",
)  # fmt: skip
PILOT = metadata("CroqueMadame_Pilot", "Croque Madame", "Jazz", "'yes'", "piano", "double bass")
CHOIR = metadata("Choir_Song", "Choir", "''", "'no'", "vocalists", "male singer")


@pytest.fixture
def folder(tmp_path):
    write_text(tmp_path / "Audio/AClassicEducation_NightOwl/AClassicEducation_NightOwl_METADATA.yaml", OWL)
    write_text(tmp_path / "Metadata/CroqueMadame_Pilot_METADATA.yaml", PILOT)
    write_text(tmp_path / "V2/Choir_Song/Choir_Song_METADATA.yaml", CHOIR)
    for path in ("Audio/AClassicEducation_NightOwl", "V1/CroqueMadame_Pilot"):
        write_tone(tmp_path / path / f"{path.partition('/')[2]}_MIX.wav")
    return tmp_path


def test_reads_both_layouts(folder):
    absent = ("V2/Choir_Song/Choir_Song_MIX.wav",)
    owl, choir, pilot = read_checked(MEDLEYDB, folder, absent).values()
    assert (owl.id, choir.id, pilot.id) == (
        "medleydb-AClassicEducation_NightOwl",
        "medleydb-Choir_Song",
        "medleydb-CroqueMadame_Pilot",
    )
    assert owl.audio == "Audio/AClassicEducation_NightOwl/AClassicEducation_NightOwl_MIX.wav"
    assert pilot.audio == "V1/CroqueMadame_Pilot/CroqueMadame_Pilot_MIX.wav"
    assert answers(owl) == {
        "genre": ("Singer/Songwriter",),
        "instruments": ("electric bass", "drum set", "voice", "violin"),
        "vocal": ("male singer",),
    }
    assert answers(pilot) == {"genre": ("Jazz",), "instruments": ("piano", "double bass"), "vocal": ("no voice",)}
    assert answers(choir) == {"instruments": ("voice",)}, "who sings is not said"
    assert [label.pool for label in owl.labels] == [GENRES, INSTRUMENTS, VOICES]


def test_an_artist_is_on_one_side(folder):
    for artist in range(60):
        for song in "AB":
            track = f"Artist{artist}_{song}"
            name = f"artist {artist}" if song == "A" else f"Artist {artist}"
            write_text(folder / f"Metadata/{track}_METADATA.yaml", metadata(track, name, "Pop", "'no'", "piano"))
    splits = {clip.id: clip.split for clip in MEDLEYDB.read(folder)}
    assert all(splits[f"medleydb-Artist{n}_A"] == splits[f"medleydb-Artist{n}_B"] for n in range(60))
    assert set(splits.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("artist: [\n", r"line 2: not YAML"),
        ("artist: !!python/object/apply:os.system ['true']\n", "line 1: not YAML"),
        ("artist: A\n", "holds no stems"),
        ("- a\n", "holds no stems"),
        ("stems:\n  S01:\n    filename: a.wav\n", "stem S01: has no instrument"),
        ("stems:\n  S01: 3\n", "stem S01: has no instrument"),
    ],
)
def test_bad_metadata_are_named(folder, text, message):
    write_text(folder / "Metadata/CroqueMadame_Pilot_METADATA.yaml", text)
    with pytest.raises(ManifestError, match=rf"CroqueMadame_Pilot_METADATA\.yaml.*{message}"):
        list(MEDLEYDB.read(folder))


def test_large_metadata_are_refused(folder):
    write_text(folder / "Metadata/CroqueMadame_Pilot_METADATA.yaml", PILOT + "#" * (1 << 20))
    with pytest.raises(ManifestError, match="more than the 1048576 that are read"):
        list(MEDLEYDB.read(folder))


def test_other_folders_are_refused(folder):
    with pytest.raises(ManifestError, match=r"no Metadata/\*_METADATA\.yaml and no Audio/"):
        list(MEDLEYDB.read(folder / "Audio"))
