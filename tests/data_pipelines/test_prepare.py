"""`mufun prepare`, through its Python function: what it writes, again and again, and what it refuses."""

import json
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from data_pipelines import shard as shard_module
from data_pipelines.manifest import Example
from data_pipelines.prepare import PrepareOptions, prepare
from data_pipelines.prepared_set import PreparedSet
from data_pipelines.record import content_hash, decode_audio
from data_pipelines.shard import ShardOptions
from data_pipelines.source import data_set_source, manifest_source
from mufun_jax.audio.waveform import load_waveform
from mufun_jax.audio.windows import to_int16
from mufun_jax.errors import ManifestError
from tests.data_pipelines.prepared_songs import ONE, entry, shards_of, small_shards, tone, with_lines, write_songs


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    return write_songs(tmp_path_factory.mktemp("songs"))


# --- what is written -----------------------------------------------------------------------------------------------


def test_every_song_is_there_whole_with_its_questions(songs, tmp_path):
    report = prepare([manifest_source(songs)], tmp_path, ONE)["songs"]
    prepared = PreparedSet(tmp_path, "songs")
    lines = list(prepared.index())
    assert len(lines) == 12
    for line, written in zip(lines, map(json.loads, songs.read_text().splitlines()), strict=True):
        record = prepared.read(line.record)
        assert record.examples == line.examples == (written,)
        expected = to_int16(load_waveform(songs.parent / written["audio"]).samples)
        np.testing.assert_array_equal(decode_audio(record.audio[0], "flac", 0, line.samples[0]), expected)
        assert line.samples == (len(expected),)
    index = next((tmp_path / "songs/1.0.0").glob("*.index-*")).read_text().splitlines()
    assert json.loads(index[0])["sha256"] == [
        content_hash(to_int16(load_waveform(songs.parent / "audio/0.wav").samples))
    ]
    assert report["splits"]["train"]["labels"] == {"genre": {"blues": 12}}
    assert report["hours"] == pytest.approx(12 * 0.5 / 3600, abs=1e-4)
    assert report["rejected"] == []


def test_examples_about_one_file_share_its_record(songs, tmp_path):
    more = [
        entry("again", "audio/0.wav", "jazz", time=[0.1, 0.4]),
        entry("both", ["audio/0.wav", "audio/1.flac"], "no"),
    ]
    more[1]["conversations"][0]["value"] = "<audio><audio>Same?"
    manifest = with_lines(songs, tmp_path, *map(json.dumps, more))
    prepare([manifest_source(manifest)], tmp_path / "out", ONE)
    lines = list(PreparedSet(tmp_path / "out", "songs").index())
    assert [len(line.examples) for line in lines] == [2] + [1] * 12
    assert lines[0].examples[1]["time"] == [0.1, 0.4]
    assert len(lines[-1].samples) == 2


def test_the_same_input_gives_the_same_bytes_on_any_number_of_workers(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path / "one", small_shards())
    prepare([manifest_source(songs)], tmp_path / "three", small_shards(workers=3))
    assert shards_of(tmp_path / "one") == shards_of(tmp_path / "three")
    assert len(list((tmp_path / "one/songs/1.0.0").glob("*.array_record-*"))) >= 3
    assert not list((tmp_path / "three/songs/1.0.0").glob(".*")), "nothing half done is left"
    assert not list((tmp_path / "three/songs/1.0.0").glob("*.plan-*"))


def test_int16_and_flac_hold_the_same_samples(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path / "flac", ONE)
    prepare([manifest_source(songs)], tmp_path / "int16", PrepareOptions(ShardOptions(encoding="int16"), workers=1))
    kinds = [PreparedSet(tmp_path / kind, "songs") for kind in ("flac", "int16")]
    for line in kinds[0].index():
        flac, int16 = (
            decode_audio(record.audio[0], record.encoding, 0, line.samples[0])
            for record in (one.read(line.record) for one in kinds)
        )
        np.testing.assert_array_equal(flac, int16)


def test_tensorflow_datasets_reads_it_without_tensorflow(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path, small_shards())
    script = f"""
import sys
import tensorflow_datasets as tfds
by_name = tfds.data_source("songs", data_dir={str(tmp_path)!r}, split="train")
by_folder = tfds.builder_from_directory({str(tmp_path / "songs" / "1.0.0")!r}).as_data_source("train")
assert "tensorflow" not in sys.modules
print(len(by_name), len(by_folder), by_name[7]["examples"] == by_folder[7]["examples"])
print(by_folder[3]["examples"].decode(), by_folder[3]["encoding"].decode(), by_folder[3]["audio"][0][:4].decode())
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[0] == "12 12 True"
    record = PreparedSet(tmp_path, "songs").read(3)
    assert said.splitlines()[1] == f"{json.dumps(list(record.examples))} flac fLaC"


# --- again and again -----------------------------------------------------------------------------------------------


def test_finished_shards_are_not_written_again(songs, tmp_path, monkeypatch):
    prepare([manifest_source(songs)], tmp_path, small_shards())
    before = shards_of(tmp_path)
    read = []
    original = shard_module.load_waveform
    monkeypatch.setattr(shard_module, "load_waveform", lambda path, **more: read.append(path) or original(path, **more))
    prepare([manifest_source(songs)], tmp_path, small_shards())
    assert read == []
    next((tmp_path / "songs/1.0.0").glob("*.summary-00001-*")).unlink()
    prepare([manifest_source(songs)], tmp_path, small_shards())
    assert 0 < len(read) < 12
    assert shards_of(tmp_path) == before


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path / "whole", small_shards())
    folder = tmp_path / "killed" / "songs" / "1.0.0"
    command = [sys.executable, "-m", "mufun_jax.cli", "prepare", str(songs), "--out", str(tmp_path / "killed")]
    process = subprocess.Popen([*command, "--shard-size", "60000", "--workers", "1"], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list(folder.glob("*.summary-*")) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.wait()
    finished = {
        file: file.stat().st_mtime_ns
        for file in folder.glob("*.array_record-*")
        if file.with_name(file.name.replace("array_record", "summary") + ".json").exists()
    }
    assert finished
    assert not (folder / "dataset_info.json").exists(), "an unfinished set is none"
    with pytest.raises(ManifestError, match="not complete: run `mufun prepare` again"):
        PreparedSet(tmp_path / "killed", "songs")
    prepare([manifest_source(songs)], tmp_path / "killed", small_shards())
    assert shards_of(tmp_path / "killed") == shards_of(tmp_path / "whole")
    assert all(file.stat().st_mtime_ns == when for file, when in finished.items())


def test_changed_input_is_written_again_and_stale_shards_go(songs, tmp_path):
    manifest = with_lines(songs, tmp_path)
    out = tmp_path / "out"
    prepare([manifest_source(manifest)], out, small_shards())
    first = set(shards_of(out))
    manifest.write_text("".join(f"{line}\n" for line in songs.read_text().splitlines()[:5]))
    prepare([manifest_source(manifest)], out, small_shards())
    assert len(list(PreparedSet(out, "songs").index())) == 5
    assert not first & set(shards_of(out)) - {"dataset_info.json"}
    fresh = tmp_path / "fresh"
    prepare([manifest_source(manifest)], fresh, small_shards())
    assert shards_of(out) == shards_of(fresh)


@pytest.mark.parametrize("change", ["words", "audio", "options", "a shard cut short"])
def test_what_changed_is_written_again_and_nothing_else(songs, tmp_path, change):
    manifest = with_lines(songs, tmp_path)
    out, options = tmp_path / "out", small_shards()
    prepare([manifest_source(manifest)], out, options)
    before = {file: file.stat().st_mtime_ns for file in PreparedSet(out, "songs").shards}
    if change == "words":
        manifest.write_text(manifest.read_text().replace("blues", "jazzy", 1))
    elif change == "audio":
        tone(manifest.parent / "audio/0.wav", 999)
    elif change == "options":
        options = small_shards(shard=ShardOptions(encoding="int16"))
    else:
        first = min(before)
        first.write_bytes(first.read_bytes()[:-1000])
    prepare([manifest_source(manifest)], out, options)
    written = sum(file.stat().st_mtime_ns != before[file] for file in PreparedSet(out, "songs").shards)
    assert written == (len(before) if change == "options" else 1)
    prepare([manifest_source(manifest)], tmp_path / "fresh", options)
    assert shards_of(out) == shards_of(tmp_path / "fresh")


def test_verify_finds_a_damaged_shard_and_writes_it_again(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path, small_shards())
    before = shards_of(tmp_path)
    shard = PreparedSet(tmp_path, "songs").shards[1]
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 16
    shard.write_bytes(data)
    prepare([manifest_source(songs)], tmp_path, small_shards())
    assert shards_of(tmp_path) != before, "a look at sizes does not find it"
    prepare([manifest_source(songs)], tmp_path, small_shards(shard=ShardOptions(verify=True)))
    assert shards_of(tmp_path) == before


# --- twice there, and in an evaluation -----------------------------------------------------------------------------


def test_equal_audio_under_two_names_is_found_by_its_content(songs, tmp_path):
    manifest = with_lines(
        songs,
        tmp_path,
        json.dumps(entry("copy", "audio/copy.flac", task="genre")),
        json.dumps(entry("other label", "audio/again.wav", "jazz", task="genre")),
    )
    samples, rate = soundfile.read(manifest.parent / "audio/0.wav", dtype="int16")
    soundfile.write(manifest.parent / "audio/copy.flac", samples, rate)  # another container, the same samples
    shutil.copy(manifest.parent / "audio/0.wav", manifest.parent / "audio/again.wav")
    report = prepare([manifest_source(manifest)], tmp_path / "out", ONE)["songs"]["splits"]["train"]
    assert report["duplicates"] == [
        {"record": 12, "of": 0, "audio": ["audio/copy.flac", "audio/0.wav"], "left_out": True},
        {"record": 13, "of": 0, "audio": ["audio/again.wav", "audio/0.wav"], "left_out": False},
    ]
    ids = [line.examples[0]["id"] for line in PreparedSet(tmp_path / "out", "songs").index()]
    assert "copy" not in ids and "other label" in ids, "no label is lost"


def test_no_audio_of_an_evaluation_is_in_a_training_shard(songs, tmp_path):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    samples, rate = soundfile.read(songs.parent / "audio/4.wav", dtype="int16")
    soundfile.write(evaluation / "renamed.flac", samples, rate)
    manifest = evaluation / "benchmark.json"
    manifest.write_text(json.dumps([entry("q", "renamed.flac", task="genre")]))
    options = small_shards(evaluation=(manifest,))
    report = prepare([manifest_source(songs)], tmp_path / "out", options)["songs"]["splits"]["train"]
    assert [leak["where"].split(", ")[1] for leak in report["leaked"]] == ["line 5"]
    ids = {line.examples[0]["id"] for line in PreparedSet(tmp_path / "out", "songs").index()}
    assert len(ids) == 11 and "song4" not in ids


def test_a_test_set_prepared_later_is_kept_out_too(songs, tmp_path):
    out = tmp_path / "out"
    prepare([manifest_source(songs)], out, small_shards())
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    shutil.copy(songs.parent / "audio/5.flac", held_out / "x.flac")
    manifest = held_out / "questions.json"
    manifest.write_text(json.dumps([entry("q", "x.flac", task="genre")]))
    with pytest.raises(ManifestError, match=r"evaluation set is in this training shard; prepare 'songs' again"):
        prepare([manifest_source(manifest, "test")], out, small_shards())
    prepare([manifest_source(songs)], out, small_shards())
    assert len(list(PreparedSet(out, "songs").index())) == 11
    assert len(list(PreparedSet(out, "questions", "test").index())) == 1


def test_a_data_set_keeps_its_own_test_split_out_of_training(tmp_path):
    """GTZAN holds the same excerpt under several names: one in its test split must not be trained on."""
    folder = tmp_path / "gtzan"
    for genre in ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock"):
        for number in range(100):
            path = folder / "genres" / genre / f"{genre}.{number:05d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    source = data_set_source("gtzan", folder, 0)
    entries = [(split, example) for split, _, example in source.entries() if isinstance(example, Example)]
    clips = {wanted: [example for split, example in entries if split == wanted] for wanted in ("train", "test")}
    first, held_out = clips["train"][0].audio[0], clips["test"][0].audio[0]
    for number, split in enumerate(("train", "test")):
        tone(clips[split][1].audio[0], 300 + 100 * number)
    tone(first, 777)
    shutil.copy(first, held_out)
    report = prepare([source], tmp_path / "out", PrepareOptions(workers=1, max_bad_fraction=1.0))["gtzan"]
    assert report["licence"] and report["splits"]["train"]["records"] == 1
    assert [leak["where"].split(", ")[1] for leak in report["splits"]["train"]["leaked"]]
    assert report["splits"]["test"]["records"] == 2
    assert any("empty audio file" in bad["reason"] for bad in report["rejected"])
