from collections import Counter

import pytest

from data_pipelines.sources.ballroom import BALLROOM, DANCES, split_of
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

FILES = (
    "Waltz/Media-105901",
    "Rumba-Misc/Albums-Fire-01",
    "Rumba-American/Albums-Fire-02",
    "VienneseWaltz/Media-100601",
    "ChaChaCha/Albums-Fire-08",
    "Samba/Albums-Fire-09",
    "Quickstep/Albums-AnaBelen_Veneo-11",
    "Quickstep/Albums-Chrisanne2-12",
)


def beats(period: float, meter: int) -> str:
    return "".join(f"{0.5 + place * period:.10f} {place % meter + 1}\n" for place in range(13))


@pytest.fixture
def folder(tmp_path):
    for name in FILES:
        write_tone(tmp_path / "BallroomData" / f"{name}.wav")
    write_text(tmp_path / "BallroomData/allBallroomFiles", "./Waltz/Media-105901.wav\n")
    annotations = tmp_path / "BallroomAnnotations"
    write_text(annotations / "Media-105901.beats", beats(60 / 87, 3))
    write_text(annotations / "Albums-Fire-01.beats", beats(60 / 104, 4).replace(" ", "\t"))
    write_text(annotations / "Albums-Fire-02.beats", beats(60 / 104, 7))
    write_text(annotations / "ballroomGroundTruth/Media-105901.bpm", "86.6\n")
    return tmp_path


def test_reads_the_folder_without_replicas(folder):
    clips = read_checked(BALLROOM, folder)
    assert list(clips) == [
        "ballroom-Albums-AnaBelen_Veneo-11",
        "ballroom-Albums-Fire-01",
        "ballroom-Albums-Fire-02",
        "ballroom-Media-100601",
        "ballroom-Media-105901",
    ]
    waltz = clips["ballroom-Media-105901"]
    assert waltz.audio == "BallroomData/Waltz/Media-105901.wav"
    assert answers(waltz) == {"dance": ("waltz",), "tempo": ("87",), "meter": ("3/4",)}
    assert waltz.labels[0].pool == DANCES and len(DANCES) == 8
    rumba = {"dance": ("rumba",), "tempo": ("104",), "meter": ("4/4",)}
    assert answers(clips["ballroom-Albums-Fire-01"]) == rumba
    assert answers(clips["ballroom-Albums-Fire-02"]) == {"dance": ("rumba",), "tempo": ("104",)}, "no meter of 7"
    assert answers(clips["ballroom-Media-100601"]) == {"dance": ("Viennese waltz",)}


def test_the_annotated_tempo_comes_before_that_of_the_beats(folder):
    write_text(folder / "BallroomAnnotations/ballroomGroundTruth/Albums-Fire-01.bpm", "208\n")
    assert answers(read_checked(BALLROOM, folder)["ballroom-Albums-Fire-01"])["tempo"] == ("208",)


def test_beats_beside_tempi(folder):
    """Both archives unpacked: GitHub's has the beats, and data2.tar.gz the tempi, in a folder of the first's name."""
    master = folder / "BallroomAnnotations-master"
    master.mkdir()
    for path in (folder / "BallroomAnnotations").glob("*.beats"):
        path.rename(master / path.name)
    clips = read_checked(BALLROOM, folder)
    assert answers(clips["ballroom-Media-105901"])["tempo"] == ("87",)
    assert answers(clips["ballroom-Albums-Fire-01"])["tempo"] == ("104",)


def test_albums_stay_together():
    assert split_of("Albums-Latin_Jam2-05") == split_of("Albums-Latin_Jam2-11")
    assert len({split_of(f"Albums-Latin_Jam{number}-05") for number in range(2, 50)}) == 3
    counts = Counter(split_of(f"Media-{number}") for number in range(100_000, 104_000))
    assert abs(counts["test"] - 400) < 80 and abs(counts["validation"] - 400) < 80


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1.5", "a time and a place"),
        ("1.5 x", "a time and a place"),
        ("nan 2", "a time and a place"),
        ("0.5 2", "the beat at 0.5 s comes after"),
    ],
)
def test_a_bad_line_of_beats_is_named(folder, line, message):
    write_text(folder / "BallroomAnnotations/Media-105901.beats", f"0.5 1\n{line}\n")
    with pytest.raises(ManifestError, match=rf"Media-105901\.beats, line 2: .*{message}"):
        list(BALLROOM.read(folder))


def test_other_folders_are_refused(folder):
    with pytest.raises(ManifestError, match="holds no BallroomData"):
        list(BALLROOM.read(folder / "BallroomData"))
    (folder / "BallroomData/Waltz").rename(folder / "BallroomData/Walz")
    with pytest.raises(ManifestError, match=r"Walz: no dance of this data set \(did you mean 'Waltz'\?\)"):
        list(BALLROOM.read(folder))
    (folder / "BallroomAnnotations").rename(folder / "labels")
    with pytest.raises(ManifestError, match="holds no BallroomAnnotations"):
        list(BALLROOM.read(folder))
    (folder / "other/BallroomData").mkdir(parents=True)
    (folder / "other/BallroomAnnotations").mkdir()
    with pytest.raises(ManifestError, match=r"holds no <dance>/\*\.wav"):
        list(BALLROOM.read(folder / "other"))
