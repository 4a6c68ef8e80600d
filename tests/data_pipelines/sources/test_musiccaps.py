import pytest

from data_pipelines.sources.musiccaps import MUSICCAPS, aspects_of
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

HEADS = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,is_audioset_eval"
TRAIN = """-0Gj8-vB1q4,30,40,"/m/0140xf,/m/02cjck","['low quality', 'it\\'s ""sad""', 'low quality']","A song,
softly sung.",4,False,False"""
TEST = """_0SdAVK79lg,30,40,/m/0155w,"[]",The music is slow.,0,False,True"""


@pytest.fixture
def folder(tmp_path):
    write_text(tmp_path / "musiccaps-public.csv", f"{HEADS}\n{TRAIN}\n{TEST}\n")
    for name in ("-0Gj8-vB1q4", "_0SdAVK79lg"):
        write_tone(tmp_path / f"wav/{name}.wav")
    return tmp_path


def test_reads_captions_and_tags(folder):
    clips = read_checked(MUSICCAPS, folder)
    assert list(clips) == ["musiccaps--0Gj8-vB1q4", "musiccaps-_0SdAVK79lg"]
    first, second = clips.values()
    assert (first.audio, first.split, first.time) == ("wav/-0Gj8-vB1q4.wav", "train", None)
    assert answers(first) == {"caption": ("A song,\nsoftly sung.",), "tags": ("low quality", 'it\'s "sad"')}
    assert second.split == "test"
    assert answers(second) == {"caption": ("The music is slow.",)}


def test_other_folders_and_suffixes(folder):
    (folder / "wav").rename(folder / "audio")
    write_tone(folder / "audio/-0Gj8-vB1q4.flac")
    (folder / "audio/-0Gj8-vB1q4.wav").unlink()
    (folder / "audio/_0SdAVK79lg.wav").unlink()
    clips = read_checked(MUSICCAPS, folder, absent=("audio/_0SdAVK79lg.wav",))
    assert [clip.audio for clip in clips.values()] == ["audio/-0Gj8-vB1q4.flac", "audio/_0SdAVK79lg.wav"]


@pytest.mark.parametrize("cell", ["", "pop", "['a", "{'a'}", "[1]", "__import__('os').system('true')", "[" * 5000])
def test_aspects_are_a_list_of_words(cell):
    with pytest.raises(ValueError, match="is no list of words"):
        aspects_of(cell)


def test_a_list_without_end_is_refused():
    with pytest.raises(ValueError, match="longer than 10000 characters"):
        aspects_of(str(["pop"] * 2000))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (TEST.replace("_0SdAVK79lg", "../../etc/x"), "'../../etc/x' is no id of YouTube"),
        (TEST.replace(",True", ",yes"), "True or False in is_audioset_eval, not 'yes'"),
        (TEST.replace("The music is slow.", ""), "needs a caption"),
        (TEST + ",1", "10 cells below 9 columns"),
        (TEST.replace("[]", "[3]"), "aspect_list is no list of words"),
    ],
)
def test_bad_rows_are_named(folder, row, message):
    write_text(folder / "musiccaps-public.csv", f"{HEADS}\n{TRAIN}\n{row}\n")
    with pytest.raises(ManifestError, match=rf"musiccaps-public\.csv, line 4: .*{message}"):
        list(MUSICCAPS.read(folder))


def test_other_tables_are_refused(folder):
    write_text(folder / "musiccaps-public.csv", HEADS.replace("caption", "captions"))
    with pytest.raises(ManifestError, match=r"line 1: no column 'caption' \(did you mean 'captions'\?\)"):
        list(MUSICCAPS.read(folder))
    with pytest.raises(ManifestError, match=r"holds no musiccaps-public\.csv"):
        list(MUSICCAPS.read(folder / "wav"))
