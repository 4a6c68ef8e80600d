"""What `mufun prepare` refuses, leaves out, and does in a run after another."""

import json
import shutil

import pytest
from filelock import FileLock

from data_pipelines import shard as shard_module
from data_pipelines.prepare import PrepareOptions, prepare
from data_pipelines.prepared_set import PreparedSet
from data_pipelines.shard import ShardOptions
from data_pipelines.source import find_source, manifest_source
from mufun_jax.errors import ManifestError, UserError
from tests.data_pipelines.prepared_songs import BAD, ONE, entry, shards_of, small_shards, with_lines, write_songs


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    return write_songs(tmp_path_factory.mktemp("songs"))


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_line_is_left_out_counted_and_told(songs, tmp_path, reason):
    manifest = with_lines(songs, tmp_path, BAD[reason])
    (manifest.parent / "audio/empty.wav").touch()
    report = prepare([manifest_source(manifest)], tmp_path / "out", small_shards(max_bad_fraction=0.1))["songs"]
    (bad,) = report["rejected"]
    assert reason in bad["reason"]
    assert bad["where"].startswith(f"{manifest}, ") and "13" in bad["where"]
    assert report["examples"] == 13
    assert len(list(PreparedSet(tmp_path / "out", "songs").index())) == 12
    with pytest.raises(
        ManifestError, match=r"1 of 13 examples are bad \(7.69%, more than --max-bad-fraction 0.001; mend them"
    ):
        prepare([manifest_source(manifest)], tmp_path / "stopped", small_shards())
    assert not (tmp_path / "stopped/songs/1.0.0/dataset_info.json").exists()
    with pytest.raises(ManifestError, match="--strict: it stops at the first") as caught:
        prepare([manifest_source(manifest)], tmp_path / "strict", small_shards(shard=ShardOptions(strict=True)))
    assert reason in str(caught.value)


def test_strict_stops_in_worker_processes_too(songs, tmp_path):
    manifest = with_lines(songs, tmp_path, BAD["no such file"])
    with pytest.raises(ManifestError, match=r"absent\.wav: no such file.*--strict: it stops at the first"):
        prepare([manifest_source(manifest)], tmp_path / "out", small_shards(shard=ShardOptions(strict=True), workers=2))


def test_one_bad_line_in_many_does_not_stop_a_run(songs, tmp_path):
    lines = [json.dumps(entry(f"again{n}", "audio/0.wav", f"answer {n}")) for n in range(2000)]
    manifest = with_lines(songs, tmp_path, *lines, "[" * 100_000)
    report = prepare([manifest_source(manifest)], tmp_path / "out", ONE)["songs"]
    assert [bad["where"] for bad in report["rejected"]] == [f"{manifest}, line 2013"]
    assert report["splits"]["train"]["examples"] == 2012
    assert report["splits"]["train"]["labels"]["unnamed"]["(others)"] == 1900, "a report has an end"


def test_a_file_beyond_the_longest_is_rejected_and_not_cut(songs, tmp_path):
    options = PrepareOptions(ShardOptions(longest=0.4), workers=1, max_bad_fraction=1.0)
    with pytest.raises(ManifestError, match=r"12 of 12 examples are bad .*too long, 0.5 s where at most 0.4 s"):
        prepare([manifest_source(songs)], tmp_path, options)


def test_sources_and_options_that_are_wrong(songs, tmp_path):
    with pytest.raises(ManifestError, match=r"gtzam.*did you mean 'gtzan'"):
        find_source(f"gtzam:{tmp_path}", 0)
    with pytest.raises(ManifestError, match="write gtzan:FOLDER"):
        find_source("gtzan", 0)
    with pytest.raises(ManifestError, match=r"no such folder; unpack the data set there \(.*genres"):
        find_source("gtzan:/nowhere", 0)
    with pytest.raises(ManifestError, match="no such manifest"):
        prepare([find_source(str(tmp_path / "absent.json"), 0)], tmp_path, ONE)
    with pytest.raises(ManifestError, match="two sources are called 'songs'"):
        prepare([manifest_source(songs)] * 2, tmp_path, ONE)
    with pytest.raises(UserError, match=r"Beam has no option 'runer' \(did you mean 'runner'\?\)"):
        prepare([manifest_source(songs)], tmp_path / "x", PrepareOptions(workers=1, beam_options=("runer=Flink",)))
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    with pytest.raises(ManifestError, match="holds no example"):
        prepare([manifest_source(empty)], tmp_path, ONE)


def test_beam_options_choose_the_runner(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path / "ours", ONE)
    options = PrepareOptions(workers=1, beam_options=("runner=BundleBasedDirectRunner",))
    prepare([manifest_source(songs)], tmp_path / "theirs", options)
    assert shards_of(tmp_path / "ours") == shards_of(tmp_path / "theirs")


# --- one run after another -----------------------------------------------------------------------------------------


def test_strict_after_a_lax_run_finds_what_that_left_out(songs, tmp_path):
    manifest = with_lines(songs, tmp_path, BAD["no such file"])
    prepare([manifest_source(manifest)], tmp_path / "out", small_shards(max_bad_fraction=0.1))
    with pytest.raises(ManifestError, match=r"absent\.wav: no such file.*--strict"):
        prepare([manifest_source(manifest)], tmp_path / "out", small_shards(shard=ShardOptions(strict=True)))


def test_what_is_no_evaluation_any_more_comes_back(songs, tmp_path):
    benchmark = songs.parent / "benchmark.json"
    benchmark.write_text(json.dumps([entry("q", "audio/4.wav", task="genre")]))
    prepare([manifest_source(songs)], tmp_path / "out", small_shards(evaluation=(benchmark,)))
    assert len(list(PreparedSet(tmp_path / "out", "songs").index())) == 11
    prepare([manifest_source(songs)], tmp_path / "out", small_shards())
    assert len(list(PreparedSet(tmp_path / "out", "songs").index())) == 12


def test_an_evaluation_set_that_is_not_finished_protects_as_well(songs, tmp_path):
    held_out = tmp_path / "held_out"
    shutil.copytree(songs.parent, held_out)
    (held_out / songs.name).rename(held_out / "questions.jsonl")
    prepare([manifest_source(held_out / "questions.jsonl", "test")], tmp_path / "out", small_shards())
    (tmp_path / "out/questions/1.0.0/dataset_info.json").unlink()
    report = prepare([manifest_source(songs)], tmp_path / "out", small_shards())["songs"]
    assert report["splits"]["train"]["records"] == 0
    assert len(report["splits"]["train"]["leaked"]) == 12


def test_a_set_with_a_leak_is_not_trained_on(songs, tmp_path):
    out = tmp_path / "out"
    prepare([manifest_source(songs)], out, small_shards())
    manifest = tmp_path / "questions.json"
    shutil.copy(songs.parent / "audio/5.flac", tmp_path / "x.flac")
    manifest.write_text(json.dumps([entry("q", "x.flac", task="genre")]))
    with pytest.raises(ManifestError, match="audio of an evaluation set"):
        prepare([manifest_source(manifest, "test")], out, small_shards())
    with pytest.raises(ManifestError, match="not complete"):
        PreparedSet(out, "songs")


def test_a_mistake_in_one_source_leaves_the_sets_of_others_as_they_are(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path / "out", small_shards())
    before = shards_of(tmp_path / "out")
    with pytest.raises(ManifestError, match="no such manifest"):
        prepare([manifest_source(songs), find_source(str(tmp_path / "absent.json"), 0)], tmp_path / "out", ONE)
    with pytest.raises(ManifestError, match="no such manifest"):
        prepare([manifest_source(songs)], tmp_path / "out", small_shards(evaluation=(tmp_path / "absent.json",)))
    assert shards_of(tmp_path / "out") == before


def test_another_manifest_of_the_same_name_does_not_replace_a_set(songs, tmp_path):
    prepare([manifest_source(songs)], tmp_path / "out", ONE)
    shutil.copytree(songs.parent, tmp_path / "other")
    with pytest.raises(ManifestError, match=r"was prepared from .*, not from .*other: give another --out"):
        prepare([manifest_source(tmp_path / "other" / songs.name)], tmp_path / "out", ONE)


def test_two_runs_do_not_write_in_one_folder_at_once(songs, tmp_path):
    with (
        FileLock(tmp_path / ".mufun-prepare.lock"),
        pytest.raises(UserError, match="another `mufun prepare` is writing"),
    ):
        prepare([manifest_source(songs)], tmp_path, ONE)


def test_a_third_copy_that_says_what_the_second_did_is_left_out(songs, tmp_path):
    lines = [json.dumps(entry(name, f"audio/{name}.wav", "jazz", task="genre")) for name in ("second", "third")]
    manifest = with_lines(songs, tmp_path, *lines)
    for name in ("second", "third"):
        shutil.copy(manifest.parent / "audio/0.wav", manifest.parent / f"audio/{name}.wav")
    report = prepare([manifest_source(manifest)], tmp_path / "out", ONE)["songs"]["splits"]["train"]
    assert [duplicate["left_out"] for duplicate in report["duplicates"]] == [False, True]


def test_a_disk_that_is_full_is_one_line(songs, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shard_module, "_publish", full)
    with pytest.raises(UserError, match=r"writing shards failed: .*No space left on device.*run it again"):
        prepare([manifest_source(songs)], tmp_path, ONE)


@pytest.mark.parametrize("option", ["runner=Foo", "runner", "help", "direct_num_workers=x"])
def test_wrong_options_of_beam_are_one_line(songs, tmp_path, option, capfd):
    with pytest.raises(UserError, match=r"^--beam "):
        prepare([manifest_source(songs)], tmp_path, PrepareOptions(workers=1, beam_options=(option,)))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("change", [{"max_bad_fraction": float("nan")}, {"shard": ShardOptions(longest=float("nan"))}])
def test_numbers_that_are_none_are_refused(change):
    with pytest.raises(UserError, match="nan: give"):
        PrepareOptions(**change)


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(entry("x", "audio/0.wav", time=[0, 10**400])),
        json.dumps(entry("x", "audio/circle.wav")),
        json.dumps(entry("x", "audio/" + "n" * 300 + ".wav")),
        json.dumps(entry("x", "audio/0.wav") | {"k" * 3_000_000: 1}),
    ],
    ids=["a time beyond all numbers", "a link to itself", "a name too long", "a key without end"],
)
def test_entries_that_would_end_a_run_are_only_counted(songs, tmp_path, line):
    manifest = with_lines(songs, tmp_path, line)
    (manifest.parent / "audio/circle.wav").symlink_to("circle.wav")
    report = prepare([manifest_source(manifest)], tmp_path / "out", small_shards(max_bad_fraction=0.1))["songs"]
    (bad,) = report["rejected"]
    assert bad["where"] == f"{manifest}, line 13" and len(bad["reason"]) < 2000
