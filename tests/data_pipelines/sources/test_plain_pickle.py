"""What Python writes for plain values is read; whatever else a pickle may hold is refused, and never run."""

import os
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from data_pipelines.sources import plain_pickle
from data_pipelines.sources.plain_pickle import Holder, read_plain_pickle
from mufun_jax.errors import ManifestError

PATH = Path("song.gz")
SONG = ("music.song", "Song")
PROTOCOLS = range(5)
VALUES = {
    "text": "Grüße, \u266b\n'\"\\",
    "long": "x" * 300,
    "bytes": b"\x00\xff",
    "numbers": [0, -1, 255, 65_536, -(2**40), 0.1, -2.5e-30],
    "truth": (True, False, None),
    "empty": ({}, [], ()),
    "tuples": (1, (2, 3), (4, 5, 6), (7, 8, 9, 10)),
    "nested": [{"time": [1.5, 2.5], "index": 3}] * 3,
    5: "a number",
}


def read(data: bytes):
    return read_plain_pickle(data, PATH, {SONG})


@pytest.fixture
def song_class(monkeypatch):
    class Song:
        pass

    Song.__module__, Song.__qualname__ = SONG
    module = ModuleType(SONG[0])
    module.Song = Song  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "music", ModuleType("music"))
    monkeypatch.setitem(sys.modules, SONG[0], module)
    return Song


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_come_back(protocol):
    assert read(pickle.dumps(VALUES, protocol)) == VALUES


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_become_holders(song_class, protocol):
    song = song_class()
    song.title, song.twin = "Ode", song_class()
    song.twin.title = "Elegy"
    held = read(pickle.dumps([song, song], protocol))
    assert held == [Holder(SONG, {"title": "Ode", "twin": Holder(SONG, {"title": "Elegy"})})] * 2
    assert held[0] is held[1]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers(protocol):
    values = [np.float64(0.1), np.float32(0.5), np.int64(-3), np.int32(7), np.uint8(200), np.bool_(True)]
    assert read(pickle.dumps(values, protocol)) == [0.1, 0.5, -3, 7, 200, True]


def old_text(raw: bytes) -> bytes:
    return b"U" + bytes([len(raw)]) + raw


def test_python_2_strings():
    names = b"]" + b"(" + old_text("Grün".encode()) + old_text(b"Gr\xfcn") + b"e"
    assert read(b"\x80\x02" + names + b".") == ["Grün", "Grün"]
    assert read(b"(S'a\\nb'\nS'c'\nl.") == ["a\nb", "c"]
    dtype = (
        b"cnumpy\ndtype\n"
        + old_text(b"f8")
        + b"K\x00K\x01\x87R(K\x03"
        + old_text(b">")
        + b"NNNJ\xff\xff\xff\xffK\x00tb"
    )
    for number in (0.1, 440.0):
        raw = old_text(struct.pack(">d", number))
        assert read(b"\x80\x02cnumpy.core.multiarray\nscalar\n" + dtype + raw + b"\x86R.") == number


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_would_run_is_refused_and_does_not_run(protocol, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    data = pickle.dumps({"info": Hostile()}, protocol)
    with pytest.raises(ManifestError, match=r"song\.gz: holds the name (posix|nt)\.system, which is no plain value"):
        read(data)
    assert not list(tmp_path.iterdir())
    pickle.loads(data)  # noqa: S301  it would have run
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(OrderedDict(a=1)), "the name collections.OrderedDict"),
        (pickle.dumps({1}), "the operation EMPTY_SET"),
        (pickle.dumps(np.zeros(2)), "the name numpy"),
        (b"cbuiltins\neval\n.", "the name builtins.eval"),
        (b"(S'a'\nimusic.song\nSong\n.", "the operation INST"),
        (b"cmusic.song\nSong\nS'a'\n\x85R.", "a call of music.song.Song"),
        (b"cmusic.song\nSong\nS'a'\n\x85\x81.", "an object of another class"),
        (b"cbuiltins\nobject\n)\x81.", "an object of another class"),
        (b"ccopy_reg\n_reconstructor\n(cmusic.song\nSong\ncmusic.song\nSong\nNtR.", "an object built on another class"),
        (b"S'a'\n)R.", "a call of a value"),
        (b"]}b.", "the state of an object"),
        (b"S'a'\nQ.", "the operation BINPERSID"),
    ],
)
def test_other_names_and_operations_are_refused(data, message):
    with pytest.raises(ManifestError, match=f"holds {message}.*is not run"):
        read(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"]",
        b"}",
        b".",
        b"(.",
        b"g5\n.",
        b"cmusic.song\nSong\n.",
        b"](cmusic.song\nSong\ne.",
        b"](e",
        b"S'a'\nS'b'\na.",
        b"}]K\x01s.",
        b"})K\x01s.",
        b"}(K\x01u.",
        b"\x85.",
        b"I9999999999999999999999\n.",
        b"\xff",
        b"ccodecs\nencode",
        b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
        b"cnumpy.core.multiarray\nscalar\n(S'a'\nS'a'\ntR.",
        pickle.dumps(VALUES)[:-7],
    ],
)
def test_damaged_pickles_are_named(data):
    with pytest.raises(ManifestError, match=r"song\.gz: its pickle (is damaged|does not end)"):
        read(data)


def test_limits(monkeypatch):
    deep: list = []
    for _ in range(plain_pickle.DEEPEST - 1):
        deep = [deep]
    assert read(pickle.dumps(deep)) == deep
    with pytest.raises(ManifestError, match="nested deeper than 32"):
        read(pickle.dumps({"a": deep}))
    round_list: list = []
    round_list.append(round_list)
    held = read(pickle.dumps(round_list))
    assert held[0] is held
    monkeypatch.setattr(plain_pickle, "MOST_OPERATIONS", 20)
    with pytest.raises(ManifestError, match="more than 20 operations"):
        read(pickle.dumps(list(range(30))))
    monkeypatch.setattr(plain_pickle, "MOST_BYTES", 100)
    with pytest.raises(ManifestError, match="more than 100 bytes"):
        read(pickle.dumps("x" * 101))


def test_a_pickle_that_doubles_itself_is_read_at_once():
    """Thirty lists, each holding the one before it twice: a walk that did not remember would take a billion steps."""
    data = (
        b"]q\x00" + b"".join(b"](h" + bytes([n]) + b"h" + bytes([n]) + b"eq" + bytes([n + 1]) for n in range(30)) + b"."
    )
    value = read(data)
    assert value[0] is value[1]
