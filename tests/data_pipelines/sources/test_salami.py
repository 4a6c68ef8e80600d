import pytest

from data_pipelines.sources.salami import SALAMI, structure
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

HEADS = (
    "SONG_ID,SOURCE,ANNOTATOR1,ANNOTATOR2,FILE_LOCATION,SONG_DURATION,EMPTY,SONG_TITLE,ARTIST,FORMAT,ANNOTATION_TIME1,"
    "ANNOTATION_TIME2,TEXTFILE1,TEXTFILE2,CLASS,GENRE,SUBMISSION_DATE1,SUBMISSION_DATE2,SONG_WAS_PRIVATE_FLAG,"
    "SONG_WAS_DISCARDED_FLAG,XEQS1,XEQS2"
)


def song(number: int, genre: str, discarded: str = "FALSE") -> str:
    return (
        f"{number},Codaich,5,8,/a,264,,Title,Artist,mp3,37,45,,,{genre},Rock,2010-06-14,2010-06-04,0,{discarded},X,X\n"
    )


@pytest.fixture
def folder(tmp_path):
    songs = [
        song(12, "popular"),
        song(2, "Live_Music_Archive"),
        song(4, "jazz", "TRUE"),
        song(6, "jazz"),
        song(8, "jazz"),
    ]
    write_text(tmp_path / "metadata/metadata.csv", f"{HEADS}\n{''.join(songs)}")
    sections = {
        "12/parsed/textfile1_functions.txt": "0.0\tSilence\n0.2\tIntro\n53.1\tno_function\n64.9\tEnd\n",
        "12/parsed/textfile2_functions.txt": (
            "0.0\tSilence\n0.5\tIntro\n12.3\tVerse\n12.3\tChorus\n60\tPre-Chorus\n63.01\tOutro\n64\tSilence\n64.9\tEnd"
        ),
        "2/parsed/textfile1_functions.txt": "0.0\tIntro\n100\tSolo\n395\tVerse\n500\tEnd\n",
        "4/parsed/textfile1_functions.txt": "0.0\tIntro\n100\tSolo\n500\tEnd\n",
        "6/parsed/textfile1_functions.txt": "0.0\tno_function\n100\tno_function\n500\tEnd\n",
    }
    for name, text in sections.items():
        write_text(tmp_path / f"annotations/{name}", text)
    write_tone(tmp_path / "audio/12.flac")
    return tmp_path


def test_reads_the_songs_whose_sections_have_names(folder):
    clips = read_checked(SALAMI, folder, absent=("audio/2.mp3",))
    assert list(clips) == ["salami-2", "salami-12"]
    assert (clips["salami-12"].audio, clips["salami-12"].time) == ("audio/12.flac", None)
    assert answers(clips["salami-12"]) == {
        "structure": ("0:00 intro, 0:12 chorus, 1:00 pre-chorus, 1:03 outro",),
        "genre": ("popular",),
    }, "of the annotator who named all of the sections"
    assert answers(clips["salami-2"]) == {"structure": ("0:00 intro, 1:40 solo",)}
    assert clips["salami-2"].time == (0.0, 390.0), "what begins later is not heard"


def test_the_repository_in_a_folder_of_its_own(folder):
    for name in ("metadata", "annotations"):
        (folder / "salami-data-public").mkdir(exist_ok=True)
        (folder / name).rename(folder / "salami-data-public" / name)
    assert [clip.audio for clip in SALAMI.read(folder)] == ["audio/2.mp3", "audio/12.flac"]


def test_splits_are_about_80_10_10(folder):
    write_text(folder / "metadata/metadata.csv", HEADS + "\n" + "".join(song(n, "jazz") for n in range(1000, 1300)))
    for number in range(1000, 1300):
        write_text(folder / f"annotations/{number}/parsed/textfile2_functions.txt", "0\tIntro\n9\tVerse\n20\tEnd\n")
    splits = [clip.split for clip in SALAMI.read(folder)]
    assert len(splits) == 300
    assert abs(splits.count("test") - 30) < 15 and abs(splits.count("validation") - 30) < 15


def test_times_are_minutes_and_seconds():
    assert structure([(0.9, "intro"), (61.99, "verse"), (3600.0, "outro")]) == "0:00 intro, 1:01 verse, 60:00 outro"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x\tVerse", "must be seconds and a section"),
        ("nan\tVerse", "must be seconds"),
        ("1.0", "must be seconds"),
        ("0.1\tVerse", "the section at 0.1 s comes after one at 0.2 s"),
    ],
)
def test_bad_sections_are_named(folder, line, message):
    write_text(folder / "annotations/2/parsed/textfile1_functions.txt", f"0.2\tIntro\n{line}\n500\tEnd\n")
    with pytest.raises(ManifestError, match=rf"2/parsed/textfile1_functions\.txt, line 2: .*{message}"):
        list(SALAMI.read(folder))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADS}\n{song(1, 'jazz')}{song(2, 'jazz')[:-3]}\n", r"line 3: 21 cells below 22 columns"),
        (f"{HEADS}\n{song(1, 'jazz').replace('1', 'one', 1)}", r"line 2: SONG_ID must be a number, not 'one'"),
        (HEADS.replace("CLASS", "KLASS"), r"line 1: no column 'CLASS' \(did you mean 'KLASS'\?\)"),
    ],
)
def test_bad_tables_are_named(folder, text, message):
    write_text(folder / "metadata/metadata.csv", text)
    with pytest.raises(ManifestError, match=rf"metadata\.csv, {message}"):
        list(SALAMI.read(folder))


def test_other_folders_are_refused(folder):
    with pytest.raises(ManifestError, match=r"holds no metadata/metadata\.csv and annotations/"):
        list(SALAMI.read(folder / "audio"))
