import gzip
import json
import os
import pickle
import sys
from types import ModuleType

import pytest

from data_pipelines.sources import dali, plain_pickle
from data_pipelines.sources.dali import DALI, DALI_LINES, LANGUAGES
from mufun_jax.errors import ManifestError
from tests.data_pipelines.sources.folders import answers, read_checked, write_text, write_tone

FIRST, SECOND = "1" * 32, "4b196e6c99574dd49ad00d56e132712b"


def line(start: float, end: float, text: str) -> dict:
    return {"text": text, "time": [start, end], "freq": [220.0, 440.0], "index": 0}


LINES = [
    line(40.0, 44.0, "third  line "),
    line(10.5, 14.0, "first line"),
    line(36.0, 40.5, "second line"),
    line(50.0, 51.0, "  "),
    line(100.0, 131.0, "a line without end"),
    line(140.0, 145.0, "long last line"),
    line(141.0, 142.0, "echo"),
]


def song(name: str, artist: str = "An Artist", language: str = "english", lines: list | None = None) -> dict:
    return {
        "info": {
            "id": name,
            "artist": artist,
            "title": "A Song",
            "audio": {"url": "x", "working": True, "path": "None"},
            "metadata": {"album": "a", "genres": ["Pop", "Rock", "Pop"], "language": language},
            "scores": {"NCC": 0.9, "manual": 0.0},
            "dataset_version": 1.0,
            "ground-truth": False,
        },
        "annotations": {
            "type": "horizontal",
            "annot": {"notes": [], "words": [], "lines": LINES if lines is None else lines, "paragraphs": []},
            "annot_param": {"fr": 43.0, "offset": 0.1},
        },
    }


@pytest.fixture
def annotations_class(monkeypatch):
    """The class that DALI's package pickles; it is not installed here."""

    class Annotations:
        errors = None

        def __init__(self, parts: dict):
            self.info, self.annotations, self.errors = parts["info"], parts["annotations"], None

    Annotations.__module__, Annotations.__qualname__ = "DALI.Annotations", "Annotations"
    module = ModuleType("DALI.Annotations")
    module.Annotations = Annotations  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "DALI", ModuleType("DALI"))
    monkeypatch.setitem(sys.modules, "DALI.Annotations", module)
    return Annotations


@pytest.fixture
def folder(tmp_path, annotations_class):
    for name, parts in ((FIRST, song(FIRST, "B", "ERROR", [])), (SECOND, song(SECOND))):
        write_gzip(tmp_path / f"annotations/{name}.gz", pickle.dumps(annotations_class(parts), 2))
    write_text(tmp_path / "dali_metadata.json", "{}")
    write_tone(tmp_path / f"audio/{SECOND}.ogg")
    return tmp_path


def write_gzip(path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(data))


def test_reads_whole_songs(folder):
    clips = read_checked(DALI, folder, absent=(f"audio/{FIRST}.mp3",))
    assert list(clips) == [f"dali-{FIRST}", f"dali-{SECOND}"]
    whole = clips[f"dali-{SECOND}"]
    assert (whole.audio, whole.time) == (f"audio/{SECOND}.ogg", None)
    assert answers(whole) == {
        "lyrics": ("first line\nsecond line\nthird line\na line without end\nlong last line\necho",),
        "language": ("English",),
        "genres": ("Pop", "Rock"),
    }
    assert whole.labels[1].pool == LANGUAGES
    assert answers(clips[f"dali-{FIRST}"]) == {"genres": ("Pop", "Rock")}


def test_reads_pieces_of_whole_lines(folder):
    clips = read_checked(DALI_LINES, folder)
    assert {name: (clip.time, answers(clip)) for name, clip in clips.items()} == {
        f"dali_lines-{SECOND}-0": ((10.5, 40.5), {"lyrics": ("first line\nsecond line",)}),
        f"dali_lines-{SECOND}-1": ((40.0, 44.0), {"lyrics": ("third line",)}),
        f"dali_lines-{SECOND}-2": ((140.0, 145.0), {"lyrics": ("long last line\necho",)}),
    }


@pytest.mark.parametrize("protocol", range(5))
def test_every_form_is_read_alike(folder, tmp_path, annotations_class, protocol):
    expected = list(DALI.read(folder)), list(DALI_LINES.read(folder))
    write_gzip(folder / f"annotations/{SECOND}.gz", pickle.dumps(annotations_class(song(SECOND)), protocol))
    assert (list(DALI.read(folder)), list(DALI_LINES.read(folder))) == expected
    for name in ("annot_tismir", "DALI_v1.0"):
        next(folder.glob("anno*")).rename(folder / name)
        assert list(DALI.read(folder)) == expected[0]
        (folder / name).rename(folder / "annotations")
    write_text(folder / f"annotations/{SECOND}.json", json.dumps(song(SECOND)))
    (folder / f"annotations/{SECOND}.gz").write_bytes(b"what is not read")
    assert list(DALI.read(folder)) == expected[0]


def test_long_lyrics_are_left_out(folder):
    for lines in ([line(0, 5, "la " * 900)], [line(0, 5, "la"), line(385, 391, "end")]):
        write_text(folder / f"annotations/{SECOND}.json", json.dumps(song(SECOND, lines=lines)))
        assert "lyrics" not in answers(list(DALI.read(folder))[1])
    write_text(folder / f"annotations/{SECOND}.json", json.dumps(song(SECOND, lines=[line(385, 390, "la")])))
    assert answers(list(DALI.read(folder))[1])["lyrics"] == ("la",)


def test_no_piece_is_longer_than_a_window_or_begins_before_the_audio(folder):
    lines = [line(-1.0, 2.0, "early"), line(1.0, 1.0, "no time")]
    lines += [line(2.0 + 3 * n, 2.0 + 3 * n + (20.0 if n % 7 == 3 else 2.5), f"line {n}") for n in range(100)]
    write_text(folder / f"annotations/{SECOND}.json", json.dumps(song(SECOND, lines=lines)))
    clips = list(DALI_LINES.read(folder))
    words = [word for clip in clips for word in answers(clip)["lyrics"][0].split("\n")]
    assert words == [f"line {n}" for n in range(100)]
    for clip in clips:
        assert clip.time is not None and 0 <= clip.time[0] < clip.time[1] <= clip.time[0] + dali.PIECE_SECONDS


def test_an_artist_is_on_one_side(folder):
    for number in range(200):
        name = f"{number:032x}"
        artist = f"artist {number // 2}" if number % 2 else f"Artist {number // 2}"
        write_text(folder / f"annotations/{name}.json", json.dumps(song(name, artist, lines=LINES[:1])))
    splits = [clip.split for clip in DALI.read(folder)][:200]
    assert splits[::2] == splits[1::2] and splits == [clip.split for clip in DALI_LINES.read(folder)][:200]
    assert set(splits) == {"train", "validation", "test"} and splits.count("train") > 150


def test_a_hostile_pickle_is_not_run(folder, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    write_gzip(folder / f"annotations/{SECOND}.gz", pickle.dumps(Hostile(), 2))
    for data_set in (DALI, DALI_LINES):
        with pytest.raises(ManifestError, match=rf"{SECOND}\.gz: holds the name posix\.system"):
            list(data_set.read(folder))
    assert not (tmp_path / "ran").exists()


def test_damaged_files_are_named(folder, monkeypatch):
    path = folder / f"annotations/{SECOND}.gz"
    whole = path.read_bytes()
    damaged = bytes([*whole[:100], whole[100] ^ 255, *whole[101:]])
    for data in (b"", b"no gzip", whole[: len(whole) // 2], damaged):
        path.write_bytes(data)
        with pytest.raises(ManifestError, match=rf"{SECOND}\.gz: (cannot be unpacked|its pickle)"):
            list(DALI.read(folder))
    write_gzip(path, pickle.dumps([1], 2))
    with pytest.raises(ManifestError, match="holds no song with info and annotations, but a list"):
        list(DALI.read(folder))
    monkeypatch.setattr(dali, "MOST_BYTES", 1000)
    monkeypatch.setattr(plain_pickle, "MOST_BYTES", 1000)
    path.write_bytes(gzip.compress(b"\0" * 10_000_000)[:-20])  # cut off: nobody looks so far
    with pytest.raises(ManifestError, match="more than 1000 bytes when unpacked"):
        list(DALI.read(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "vertical"}, "not horizontal; call vertical2horizontal"),
        ({"annot": {"lines": [{"text": "a", "time": [2.0, 1.0]}]}}, "line 1 of the lyrics: has no text and time"),
        ({"annot": {"lines": [line(0, 1, "a"), {"time": [0, 1]}]}}, "line 2 of the lyrics"),
        ({"annot": {"lines": [{"text": "a", "time": [1.0]}]}}, "line 1 of the lyrics"),
        ({"annot": {"lines": [{"text": "a", "time": [0.0, float("nan")]}]}}, "line 1 of the lyrics"),
        ({"annot": {"lines": [{"text": "a", "time": [0, 10**400]}]}}, "line 1 of the lyrics"),
        ({"annot": {}}, "annot has no list of lines"),
        ({"annot": []}, "annot is no dict but a list"),
    ],
)
def test_bad_songs_are_named(folder, change, message):
    parts = song(SECOND)
    parts["annotations"] |= change
    write_text(folder / f"annotations/{SECOND}.json", json.dumps(parts))
    with pytest.raises(ManifestError, match=rf"{SECOND}\.json.*{message}"):
        list(DALI_LINES.read(folder))


def test_other_folders_are_refused(folder):
    write_text(folder / f"annotations/{SECOND}.json", "{")
    with pytest.raises(ManifestError, match="not JSON"):
        list(DALI.read(folder))
    with pytest.raises(ManifestError, match=r"no <id>\.gz or <id>\.json in it or in annotations"):
        list(DALI.read(folder / "audio"))
