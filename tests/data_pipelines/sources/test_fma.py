import csv

import pytest

from data_pipelines.sources.fma import FMA, GENRES
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_tone

HEADS = (
    ["", "album", "set", "set", "track", "track"],
    ["", "information", "split", "subset", "genre_top", "title"],
    ["track_id", "", "", "", "", ""],
)
TRACKS = (
    ["134", "<p>Two\nlines, and \"more\"</p>", "test", "medium", "Old-Time / Historic", "Street"],
    ["2", "x" * 200_000, "training", "small", "Hip-Hop", "Food"],
    ["3", "", "validation", "large", "Rock", "Electric Ave"],
    ["10", "", "training", "medium", "", "Freeway"],
    ["100140", "", "validation", "small", "Folk", "Peel Back"],
)  # fmt: skip


def write_table(folder, rows):
    path = folder / "fma_metadata/tracks.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@pytest.fixture
def folder(tmp_path):
    write_table(tmp_path, [*HEADS, *TRACKS])
    for name in ("000/000002", "000/000134", "100/100140"):
        write_tone(tmp_path / f"fma_medium/{name}.mp3")
    return tmp_path


def test_reads_the_tracks_of_the_subset_that_is_there(folder):
    clips = read_checked(FMA, folder)
    assert [(clip.id, clip.audio, clip.split, answers(clip)["genre"]) for clip in clips.values()] == [
        ("fma-000002", "fma_medium/000/000002.mp3", "train", ("Hip-Hop",)),
        ("fma-000134", "fma_medium/000/000134.mp3", "test", ("Old-Time / Historic",)),
        ("fma-100140", "fma_medium/100/100140.mp3", "validation", ("Folk",)),
    ]
    assert len(GENRES) == 16 and all(clip.labels[0].pool == GENRES for clip in clips.values())


def test_other_subsets(folder):
    (folder / "fma_medium").rename(folder / "fma_small")
    assert list(read_checked(FMA, folder)) == ["fma-000002", "fma-100140"]
    (folder / "fma_small").rename(folder / "fma_large")
    clips = read_checked(FMA, folder, absent=("fma_large/000/000003.mp3",))
    assert list(clips) == ["fma-000002", "fma-000003", "fma-000134", "fma-100140"], (
        "an absent file is named all the same"
    )
    (folder / "fma_full").mkdir()
    assert next(FMA.read(folder)).audio == "fma_full/000/000002.mp3"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["7", "", "test", "small", "Rock"], "must be a track's number and 5 cells, not 4"),
        (["x7", "", "test", "small", "Rock", ""], "must be a track's number"),
        (["7", "", "tests", "small", "Rock", ""], "unknown split"),
        (["7", "", "test", "tiny", "Rock", ""], "unknown split"),
        (["7", "", "test", "small", "Polka", ""], "unknown split, subset or genre in .*'Polka'"),
    ],
)
def test_a_bad_row_is_named(folder, row, message):
    write_table(folder, [*HEADS, TRACKS[0], row])
    with pytest.raises(ManifestError, match=rf"tracks\.csv, line 6: .*{message}"):
        list(FMA.read(folder))


def test_other_folders_are_refused(folder):
    write_table(folder, HEADS[:2])
    with pytest.raises(ManifestError, match=r"tracks\.csv, line 3: the file ends within"):
        list(FMA.read(folder))
    write_table(folder, [HEADS[0], ["", "information", "splits", "subset", "genre_top", "title"], HEADS[2]])
    with pytest.raises(ManifestError, match=r"no column 'set split' above \(did you mean 'set splits'\?\)"):
        list(FMA.read(folder))
    (folder / "fma_medium").rename(folder / "audio")
    with pytest.raises(ManifestError, match="holds no fma_full and no fma_large"):
        list(FMA.read(folder))
    with pytest.raises(ManifestError, match=r"holds no fma_metadata/tracks\.csv"):
        list(FMA.read(folder / "audio"))
