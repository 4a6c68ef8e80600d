import pytest

from data_pipelines.sources.magnatagatune import MAGNATAGATUNE, split_of
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

TAGS = ("no voice", "singer", "clasical", "classical", "no piano", "woman", "female vocal", "guitar", "lol", "drum")
ROWS = (
    (2, (0, 1, 1, 1, 1, 0, 0, 0, 0, 0), "f/american_bach_soloists-0-29.mp3"),
    (6, (1, 0, 0, 0, 0, 0, 0, 1, 1, 0), "0/guitarist-0-29.mp3"),
    (10, (0, 0, 0, 0, 0, 1, 1, 0, 0, 1), "c/singer-0-29.mp3"),
    (11, (0, 0, 0, 0, 1, 0, 0, 0, 1, 0), "c/untagged-0-29.mp3"),
)


def line(*cells):
    return "\t".join(f'"{cell}"' for cell in cells)


def write_table(folder, *more):
    lines = [line("clip_id", *TAGS, "mp3_path"), *(line(clip, *marks, path) for clip, marks, path in ROWS), *more]
    write_text(folder / "annotations_final.csv", "\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    write_table(tmp_path)
    for _, _, path in ROWS:
        write_tone(tmp_path / path)
    return tmp_path


def test_reads_the_tagged_excerpts(folder):
    clips = read_checked(MAGNATAGATUNE, folder)
    assert [(clip.id, clip.audio, clip.split, answers(clip)["tags"]) for clip in clips.values()] == [
        ("magnatagatune-6", "0/guitarist-0-29.mp3", "train", ("guitar", "no vocals")),
        ("magnatagatune-10", "c/singer-0-29.mp3", "validation", ("drums", "female vocals")),
        ("magnatagatune-2", "f/american_bach_soloists-0-29.mp3", "test", ("classical", "vocals")),
    ]
    pool = ("classical", "drums", "female vocals", "guitar", "no vocals", "vocals")
    assert {clip.labels[0].pool for clip in clips.values()} == {pool}


def test_audio_in_a_folder_of_its_own(folder):
    (folder / "mp3").mkdir()
    for name in "0cf":
        (folder / name).rename(folder / "mp3" / name)
    assert next(iter(read_checked(MAGNATAGATUNE, folder).values())).audio == "mp3/0/guitarist-0-29.mp3"


def test_the_customary_split():
    splits = [split_of(f"{folder}/name.mp3") for folder in "0123456789abcdef"]
    assert splits == ["train"] * 12 + ["validation"] + ["test"] * 3


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (line(12, *ROWS[0][1][1:], "0/a.mp3"), "must be a number, 10 cells of 0 or 1, and a path"),
        (line("x", *ROWS[0][1], "0/a.mp3"), "must be a number"),
        (line(12, *ROWS[0][1][1:], "yes", "0/a.mp3"), "must be a number"),
        (line(12, *ROWS[0][1], "../a.mp3"), "is no path such as 0/name.mp3"),
        (line(12, *ROWS[0][1], "0/../../a.mp3"), "is no path such as 0/name.mp3"),
    ],
)
def test_a_bad_row_is_named(folder, row, message):
    write_table(folder, row)
    with pytest.raises(ManifestError, match=rf"annotations_final\.csv, line 6: .*{message}"):
        list(MAGNATAGATUNE.read(folder))


def test_other_folders_are_refused(folder):
    with pytest.raises(ManifestError, match=r"holds no annotations_final\.csv"):
        list(MAGNATAGATUNE.read(folder / "0"))
    write_text(folder / "annotations_final.csv", "clip_id,tag\n")
    with pytest.raises(ManifestError, match="line 1: the columns must go from clip_id to mp3_path"):
        list(MAGNATAGATUNE.read(folder))
    write_table(folder)
    for name in "0cf":
        (folder / name).rename(folder / f"folder-{name}")
    with pytest.raises(ManifestError, match="no audio in"):
        list(MAGNATAGATUNE.read(folder))
