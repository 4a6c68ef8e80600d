"""Songs of a benchmark found again in training data, by bytes and by what is heard."""

import json

import numpy as np
import pytest
import soundfile

from data_pipelines.manifest import ManifestError
from data_pipelines.record import content_hash
from data_pipelines.shard import VERSION
from mufun_jax.evaluate.benchmark_question import Song
from mufun_jax.evaluate.benchmark_report.training_overlap import (
    Overlap,
    digest_songs,
    overlap_warnings,
    overlap_with_manifest,
    overlap_with_prepared,
)


@pytest.fixture
def folder(tmp_path):
    """Four tones: a.wav; b.flac, which sounds as c.wav does; and no audio in d.wav."""
    tones = {
        name: (8000 * np.sin(np.arange(16_000) * pitch)).astype(np.int16) for name, pitch in (("a", 0.1), ("b", 0.2))
    }
    soundfile.write(tmp_path / "a.wav", tones["a"], 16_000)
    soundfile.write(tmp_path / "b.flac", tones["b"], 16_000)
    soundfile.write(tmp_path / "c.wav", tones["b"], 16_000)
    (tmp_path / "d.wav").write_bytes(b"no audio")
    return tmp_path


def song(path, *, as_bytes=False):
    return Song(path.name, lambda: path.read_bytes() if as_bytes else path)


def manifest_of(folder, *names):
    turns = [{"from": "human", "value": "<audio>\nWhat?"}, {"from": "gpt", "value": "That."}]
    entries = [{"id": f"train-{name}", "audio": name, "conversations": turns} for name in names]
    path = folder / "train.json"
    path.write_text(json.dumps(entries))
    return path


def test_copies_are_found_by_bytes_and_by_sound(folder):
    songs = digest_songs([song(folder / "a.wav", as_bytes=True), song(folder / "b.flac")])
    found = overlap_with_manifest(songs, manifest_of(folder, "c.wav", "a.wav"))
    assert found == Overlap({"a.wav": ("train-a.wav",), "b.flac": ("train-c.wav",)}, ())
    assert overlap_with_manifest(songs, manifest_of(folder, "c.wav")).shared == {"b.flac": ("train-c.wav",)}


def test_what_cannot_be_decoded_is_compared_by_bytes_and_told(folder):
    songs = digest_songs([song(folder / "d.wav"), song(folder / "a.wav")])
    assert songs["d.wav"].samples is None
    found = overlap_with_manifest(songs, manifest_of(folder, "d.wav", "gone.wav"))
    assert found.shared == {"d.wav": ("train-d.wav",)}
    assert found.unreadable == ("d.wav", str(folder / "d.wav"), str(folder / "gone.wav"))


def test_a_song_is_loaded_once(folder):
    loads = []
    one = Song("a", lambda: loads.append(1) or folder / "a.wav")
    assert list(digest_songs([one, one])) == ["a"]
    assert loads == [1]


def test_a_bad_manifest_is_named(folder):
    path = folder / "train.json"
    path.write_text('[{"id": "x", "audio": "../x.wav", "conversations": []}]')
    with pytest.raises(ManifestError, match="lies outside"):
        overlap_with_manifest({}, path)


def test_prepared_sets_are_compared_by_their_index(folder, monkeypatch):
    """Whether a set is whole is PreparedSet's to say, which its own tests see to."""
    from mufun_jax.evaluate.benchmark_report import training_overlap

    opened = []
    monkeypatch.setattr(training_overlap, "PreparedSet", lambda *at: opened.append(at))
    samples, _ = soundfile.read(folder / "c.wav", dtype="int16")
    place = folder / "prepared" / "mine" / VERSION
    place.mkdir(parents=True)
    (place / "mine-train.index-00000-of-00001.jsonl").write_text(json.dumps({"sha256": [content_hash(samples)]}) + "\n")
    songs = digest_songs([song(folder / "a.wav"), song(folder / "b.flac")])
    assert overlap_with_prepared(songs, folder / "prepared", ["mine"]).shared == {"b.flac": ("mine",)}
    assert opened == [(folder / "prepared", "mine")]


def test_a_prepared_set_that_is_not_there(folder):
    with pytest.raises(ManifestError, match="is no prepared set"):
        overlap_with_prepared({}, folder, ["mine"])


def test_the_warnings():
    overlap = Overlap({"a": ("x",), "b": ("y", "z")}, ("c",))
    shared, unreadable = overlap_warnings(overlap, {"a": 6, "b": 2, "c": 1}, "train.json")
    assert shared.startswith("2 songs, of 8 questions, are in the training data train.json too") and "a, b" in shared
    assert unreadable.startswith("1 audio files could not be decoded")
    assert overlap_warnings(Overlap({}, ()), {}, "train.json") == []
