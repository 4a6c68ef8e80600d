import pytest

from data_pipelines.sources.mtg_jamendo import MTG_JAMENDO
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

HEADER = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
TRACKS = {
    "train": (
        "track_0007400\tartist_000087\talbum_000906\t00/7400.mp3\t212.7\tmood/theme---film\tgenre---rock\tgenre---pop",
        "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock",
    ),
    "validation": (
        "track_1048592\tartist_424343\talbum_123552\t92/1048592.mp3\t238.2\tgenre---rnb\tinstrument---drummachine",
    ),
    "test": ("track_0786434\tartist_368880\talbum_092222\t34/786434.mp3\t460.8\tgenre---house\tinstrument---bass",),
}


def write_tables(folder, tracks):
    for split, lines in tracks.items():
        write_text(folder / f"data/splits/split-0/autotagging-{split}.tsv", "\n".join([HEADER, *lines]) + "\n")


@pytest.fixture
def folder(tmp_path):
    write_tables(tmp_path, TRACKS)
    for name in ("00/7400", "14/214.low", "92/1048592"):
        write_tone(tmp_path / f"raw_30s/audio/{name}.mp3")
    return tmp_path


def test_reads_split_0(folder):
    clips = read_checked(MTG_JAMENDO, folder, absent=("raw_30s/audio/34/786434.mp3",))
    assert [(clip.id, clip.audio, clip.split) for clip in clips.values()] == [
        ("mtg_jamendo-track_0000214", "raw_30s/audio/14/214.low.mp3", "train"),
        ("mtg_jamendo-track_0007400", "raw_30s/audio/00/7400.mp3", "train"),
        ("mtg_jamendo-track_1048592", "raw_30s/audio/92/1048592.mp3", "validation"),
        ("mtg_jamendo-track_0786434", "raw_30s/audio/34/786434.mp3", "test"),
    ]
    assert answers(clips["mtg_jamendo-track_0007400"]) == {"genres": ("pop", "rock"), "mood": ("film",)}
    validation = clips["mtg_jamendo-track_1048592"]
    assert answers(validation) == {"genres": ("R&B",), "instruments": ("drum machine",)}
    pools = [("R&B", "house", "pop", "punk rock", "rock"), ("bass", "drum machine")]
    assert [label.pool for label in validation.labels] == pools, "the tags of all three splits"


def test_audio_beside_the_repository(folder):
    (folder / "data").rename(folder / "data_")
    (folder / "mtg-jamendo-dataset").mkdir()
    (folder / "data_").rename(folder / "mtg-jamendo-dataset/data")
    for path in (folder / "raw_30s/audio").iterdir():
        path.rename(folder / path.name)
    assert [clip.audio for clip in MTG_JAMENDO.read(folder)][1] == "00/7400.mp3"


@pytest.mark.parametrize(
    "row",
    [
        "track_1\tartist_1\talbum_1\t00/1.mp3\t3.0",
        "track_1\tartist_1\talbum_1\t../1.mp3\t3.0\tgenre---rock",
        "track_1\tartist_1\talbum_1\t/etc/1.mp3\t3.0\tgenre---rock",
        "track_1\tartist_1\talbum_1\t00/1.mp3\t3.0\tgenres---rock",
        "track_1\tartist_1\talbum_1\t00/1.mp3\t3.0\tgenre---",
    ],
)
def test_a_bad_row_is_named(folder, row):
    write_tables(folder, {"validation": (*TRACKS["validation"], row)})
    with pytest.raises(ManifestError, match=r"autotagging-validation\.tsv, line 3: must be a track"):
        list(MTG_JAMENDO.read(folder))


def test_other_folders_are_refused(folder):
    write_text(folder / "data/splits/split-0/autotagging-test.tsv", "TRACK_ID\tTAGS\n")
    with pytest.raises(ManifestError, match=r"autotagging-test\.tsv, line 1: must be the columns TRACK_ID"):
        list(MTG_JAMENDO.read(folder))
    (folder / "data/splits/split-0/autotagging-test.tsv").unlink()
    with pytest.raises(ManifestError, match=r"autotagging-test\.tsv: no such file"):
        list(MTG_JAMENDO.read(folder))
    (folder / "raw_30s").rename(folder / "tracks")
    with pytest.raises(ManifestError, match="no audio in raw_30s/audio/"):
        list(MTG_JAMENDO.read(folder))
    with pytest.raises(ManifestError, match="holds no data/splits/split-0"):
        list(MTG_JAMENDO.read(folder / "tracks"))
