import pytest

from data_pipelines.keys import KEYS
from data_pipelines.sources.giantsteps_key import GIANTSTEPS_KEY
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

ROWS = ("5061\tD# minor\t2", "10981\t-\t0", "16484\tA minor\t1", "61578\tC minor / F# minor\t2", "4311630\t \t0")


@pytest.fixture
def folder(tmp_path):
    mtg, key = tmp_path / "giantsteps-mtg-key-dataset", tmp_path / "giantsteps-key-dataset"
    text = "\n".join(["ID\tMANUAL KEY\tC", "10010\tG# major\t2", *ROWS, "4970565\tB major \t2"])
    write_text(mtg / "annotations/annotations.txt", text + "\n")
    for name in (10010, 5061, 4970565):
        write_tone(mtg / f"audio/{name}.LOFI.mp3")
    for name, text in {"10089": "D minor", "877345": "Eb  major\n"}.items():
        write_text(key / f"annotations/key/{name}.LOFI.key", text)
        write_tone(key / f"audio/{name}.LOFI.mp3")
    return tmp_path


def test_reads_both_repositories(folder):
    clips = read_checked(GIANTSTEPS_KEY, folder)
    assert {name: (clip.split, *answers(clip)["key"]) for name, clip in clips.items()} == {
        "giantsteps_key-mtg-5061": ("train", "Eb minor"),
        "giantsteps_key-mtg-10010": ("validation", "Ab major"),
        "giantsteps_key-mtg-4970565": ("train", "B major"),
        "giantsteps_key-10089.LOFI": ("test", "D minor"),
        "giantsteps_key-877345.LOFI": ("test", "Eb major"),
    }
    assert list(clips)[:2] == ["giantsteps_key-mtg-5061", "giantsteps_key-mtg-10010"], "by number"
    assert all(clip.labels[0].pool == KEYS for clip in clips.values())


def test_one_repository_is_enough_even_as_an_archive(folder):
    (folder / "giantsteps-mtg-key-dataset").rename(folder / "elsewhere")
    (folder / "giantsteps-key-dataset").rename(folder / "giantsteps-key-dataset-master")
    clips = read_checked(GIANTSTEPS_KEY, folder)
    assert {clip.split for clip in clips.values()} == {"test"}
    with pytest.raises(ManifestError, match="holds neither giantsteps-mtg-key-dataset nor giantsteps-key-dataset"):
        list(GIANTSTEPS_KEY.read(folder / "elsewhere"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("5062\tD minor", "a number, a key and a confidence"),
        ("x\tD minor\t2", "a number, a key and a confidence"),
        ("5062\tD minor\t3", "a number, a key and a confidence"),
        ("5062\tH minor\t2", "'H minor' is no key"),
    ],
)
def test_a_bad_row_is_named(folder, row, message):
    table = folder / "giantsteps-mtg-key-dataset/annotations/annotations.txt"
    write_text(table, f"ID\tMANUAL KEY\tC\n5061\tD minor\t2\n{row}\n")
    with pytest.raises(ManifestError, match=rf"annotations\.txt, line 3: .*{message}"):
        list(GIANTSTEPS_KEY.read(folder))


def test_other_files_are_refused(folder):
    write_text(folder / "giantsteps-key-dataset/annotations/key/10089.LOFI.key", "dorian")
    with pytest.raises(ManifestError, match=r"10089\.LOFI\.key, line 1: 'dorian' is no key"):
        list(GIANTSTEPS_KEY.read(folder))
    (folder / "giantsteps-key-dataset/annotations/key").rename(folder / "key")
    with pytest.raises(ManifestError, match=r"annotations/key: holds no \.key file"):
        list(GIANTSTEPS_KEY.read(folder))
    write_text(folder / "giantsteps-mtg-key-dataset/annotations/annotations.txt", "ID\tKEY\n")
    with pytest.raises(ManifestError, match=r"annotations\.txt, line 1: must begin with the columns ID"):
        list(GIANTSTEPS_KEY.read(folder))
