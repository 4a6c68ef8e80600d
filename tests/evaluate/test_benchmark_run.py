"""A benchmark's run, from a folder of a benchmark to the results on the disk, with models that need no weights."""

import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

import mufun_jax
from mufun_jax.errors import UserError
from mufun_jax.evaluate import results_file
from mufun_jax.evaluate.asking.plan import askings, batches_of, limited
from mufun_jax.evaluate.benchmark_run import RunOptions, plan_benchmark, plan_run, report_run
from mufun_jax.evaluate.benchmarks.registry import read_benchmark
from mufun_jax.evaluate.result import CONDITIONS
from mufun_jax.evaluate.results_file import key_of, read_folder, read_results
from tests.evaluate.fake_mufun import FakeMuFun, Kind, answers_of, ask_all
from tests.evaluate.synthetic_mucue import SETS, write_mucue

LAYOUTS: tuple[Literal["parquet", "folder"], ...] = ("parquet", "folder")
QUESTIONS = sum(SETS.values())


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    found = {}
    for layout in LAYOUTS:
        found[layout] = tmp_path_factory.mktemp(layout)
        write_mucue(found[layout], layout=layout)
    return found


@pytest.fixture(scope="module")
def oracle_of(folders):
    answers = answers_of("mucue", folders["folder"])

    def model(kind: Kind = "oracle") -> FakeMuFun:
        return FakeMuFun(kind, answers)

    return model


def every_accuracy(report) -> set[float]:
    return {accuracy.accuracy for each in report.scores.sets for accuracy in each.ways.values()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rotations", [1, 4])
def test_an_oracle_is_always_right(folders, oracle_of, tmp_path, layout, rotations):
    model = oracle_of()
    planned = ask_all(folders[layout], tmp_path, model, RunOptions("mucue", rotations=rotations))
    reported = report_run(planned, tmp_path)
    assert reported.complete
    assert len(reported.report.scores.ways) == 5
    assert every_accuracy(reported.report) == {1.0}
    assert len(reported.results) == QUESTIONS * len(CONDITIONS) * rotations
    assert reported.report.scores.overall.published_convention == 1.0
    assert reported.report.scores.incomplete == 0
    assert max(model.batches) <= 32


@pytest.mark.parametrize("layout", LAYOUTS)
def test_always_b_scores_the_share_of_b(folders, oracle_of, tmp_path, layout):
    planned = ask_all(folders[layout], tmp_path, oracle_of("always_b"), RunOptions("mucue"))
    questions = planned.benchmark.questions
    for each in report_run(planned, tmp_path).report.scores.sets:
        answers = [question.answer for question in questions if question.set == each.name]
        share = answers.count(1) / len(answers)
        assert len(each.ways) == 5
        assert all(accuracy.accuracy == pytest.approx(share) for accuracy in each.ways.values())
        assert each.always["B"] == pytest.approx(share)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mute_model_is_always_wrong(folders, oracle_of, tmp_path, layout):
    planned = ask_all(folders[layout], tmp_path, oracle_of("mute"), RunOptions("mucue"))
    report = report_run(planned, tmp_path).report
    assert every_accuracy(report) == {0.0}
    assert report.scores.overall.published_convention is None
    assert all(each.unreadable == each.replies == each.n for each in report.scores.sets)


def test_rotated_options_are_read_back_to_their_own_places(folders, oracle_of, tmp_path):
    planned = ask_all(folders["folder"], tmp_path, oracle_of("always_b"), RunOptions("mucue", rotations=4))
    for result in read_folder(tmp_path)[1]:
        assert result.letter == result.constrained == (1 + result.rotation) % 4
        assert result.option_order == tuple((place + result.rotation) % 4 for place in range(4))
    report = report_run(planned, tmp_path).report
    assert report.scores.overall.average["generated"].accuracy == pytest.approx(0.25)
    assert report.scores.overall.average["letter_log_probability"].accuracy == 0.0  # all options are as likely: ties


def test_what_is_heard_under_each_condition(folders, oracle_of, tmp_path):
    model = oracle_of()
    planned = ask_all(folders["folder"], tmp_path, model, RunOptions("mucue"))
    results = {(result.id, result.condition): result for result in read_folder(tmp_path)[1]}
    own = {result.id: result.audio_digest for result in results.values() if result.condition == "audio"}
    for question in planned.benchmark.questions:
        audio, nothing, other, silence = (results[question.id, condition] for condition in CONDITIONS)
        assert audio.prompt == other.prompt == silence.prompt == f"<audio>\n{nothing.prompt}"
        assert audio.seconds_used == pytest.approx(0.1 if question.segment else 0.5, abs=0.001)
        assert (nothing.seconds_used, nothing.seconds_dropped, nothing.audio_digest) == (0.0, 0.0, None)
        assert other.audio_digest in own.values()
        assert other.audio_digest != audio.audio_digest
        assert (silence.seconds_used, silence.seconds_dropped) == (30.0, 0.25)
        assert silence.audio_digest not in own.values()
    of_silence = [question for question in model.asked if isinstance((*question.audio_files, None)[0], bytes)]
    assert len(of_silence) == QUESTIONS


def test_another_song_is_of_the_same_set_where_there_is_one(folders):
    benchmark = read_benchmark("mucue", folders["folder"])
    rows = askings(benchmark, benchmark, ("other_song",), 1)
    songs = {song.key: question.set for question in benchmark.questions for song in (question.song,)}
    for row in rows:
        assert row.sound is not None
        assert songs[row.sound.songs[0].key] == row.question.set
        assert row.sound.songs[0].key != row.question.song.key
    shuffled = replace(benchmark, questions=tuple(random.Random(1).sample(benchmark.questions, QUESTIONS)))
    again = {row.key: row.sound for row in askings(shuffled, shuffled, ("other_song",), 1)}
    assert again == {row.key: row.sound for row in rows}
    (one_song,) = {q.song.key for q in benchmark.questions[:3]}
    alone = replace(benchmark, questions=benchmark.questions[:3])
    assert one_song
    with pytest.raises(UserError, match=r"no question on another song.*leave other_song out"):
        askings(alone, alone, ("other_song",), 1)
    assert askings(alone, benchmark, ("other_song",), 1)  # songs of what is not asked will do


def test_questions_on_one_song_are_asked_together(folders, oracle_of):
    planned = plan_run(RunOptions("mucue", rotations=4, rows=16), folders["folder"])
    batches = [batch for bundle in planned.bundles for batch in bundle]
    assert sum(map(len, batches)) == QUESTIONS * 4 * 4 == len({row.key for row in planned.rows})
    assert all(len(batch) <= 16 for batch in batches)
    places: dict[str, list[int]] = {}
    for place, bundle in enumerate(planned.bundles):
        for batch in bundle:
            for row in batch:
                if row.sound is not None:
                    places.setdefault(row.sound.key, []).append(place)
    assert all(len(set(of_sound)) == 1 for of_sound in places.values())


@pytest.mark.parametrize("hosts", [2, 3, 7])
def test_hosts_share_the_very_batches_of_one(folders, oracle_of, tmp_path, hosts):
    one = ask_all(folders["folder"], tmp_path / "one", oracle_of(), RunOptions("mucue"))
    shared = [batches_of(one.bundles, host, hosts) for host in range(hosts)]
    assert sorted(map(id, [batch for host in shared for batch in host])) == sorted(
        id(batch) for bundle in one.bundles for batch in bundle
    )
    for host in range(hosts):
        planned = ask_all(
            folders["folder"], tmp_path / "many", oracle_of(), RunOptions("mucue", host=host, hosts=hosts)
        )
        if host < hosts - 1:
            reported = report_run(planned, tmp_path / "many")
            assert not reported.complete
            assert f"results.{host + 1}.jsonl" in reported.report.warnings[0]
            assert "is not in" in reported.report.warnings[0]
    single = {key_of(result): result for result in read_folder(tmp_path / "one")[1]}
    assert {key_of(result): result for result in read_folder(tmp_path / "many")[1]} == single
    assert report_run(one, tmp_path / "many").complete


def test_the_order_of_the_questions_changes_nothing(folders, oracle_of, tmp_path):
    read = read_benchmark("mucue", folders["folder"])
    shuffled = replace(read, questions=tuple(random.Random(2).sample(read.questions, QUESTIONS)))
    for name, benchmark in (("read", read), ("shuffled", shuffled)):
        for limit in (None, 3):
            options = RunOptions("mucue", limit=limit)
            planned = plan_benchmark(options, benchmark)
            ask_all(folders["folder"], tmp_path / f"{name}{limit}", oracle_of(), options, planned)
    for limit in (None, 3):
        written = [(tmp_path / f"{name}{limit}" / "results.jsonl").read_bytes() for name in ("read", "shuffled")]
        assert written[0] == written[1]
    assert {len(planned.benchmark.questions) for planned in [planned]} == {3 * len(SETS)}
    assert limited(read, 100) == read


class Killed(BaseException):
    pass


def kill_in_append(monkeypatch, number: int, share: float) -> None:
    """The process ends while the given line or batch is written: only a part of it gets to the disk."""
    left = [number]

    def append(path: Path, data: bytes) -> None:
        with path.open("ab") as file:
            if left[0] == 0:
                file.write(data[: int(share * len(data))])
                raise Killed
            file.write(data)
        left[0] -= 1

    monkeypatch.setattr(results_file, "_append", append)


def test_killed_at_thirty_moments_and_resumed(folders, oracle_of, tmp_path, monkeypatch):
    options = RunOptions("mucue", limit=3, rows=3)
    ask_all(folders["folder"], tmp_path / "whole", oracle_of(), options)
    whole = (tmp_path / "whole" / "results.jsonl").read_bytes()
    batches = sum(map(len, plan_run(options, folders["folder"]).bundles))
    draw, kills = random.Random(0), 0
    for moment in range(30):
        out = tmp_path / str(moment)
        ended = False
        while not ended:
            with monkeypatch.context() as patched:
                kill_in_append(patched, draw.randrange(batches + 1), draw.choice([0.0, draw.random(), 1.0]))
                try:
                    ask_all(folders["folder"], out, oracle_of(), options)
                    ended = True
                except Killed:
                    kills += 1
        ask_all(folders["folder"], out, oracle_of(), options)
        assert (out / "results.jsonl").read_bytes() == whole, moment
        shutil.rmtree(out)
    assert kills >= 30


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on(folders, oracle_of, tmp_path):
    ask_all(folders["folder"], tmp_path / "whole", oracle_of(), RunOptions("mucue", rows=4))
    command = [sys.executable, "-m", "tests.evaluate.fake_mufun", str(folders["folder"]), str(tmp_path / "killed")]
    root = Path(mufun_jax.__file__).parent.parent
    kills = 0
    for lines in (3, 10, 2, 1, 5):
        process = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(root)}
        )
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
    assert kills == 5
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(root)})
    whole = (tmp_path / "whole" / "results.jsonl").read_bytes()
    assert (tmp_path / "killed" / "results.jsonl").read_bytes() == whole


def test_what_is_asked_already_is_not_asked_again(folders, oracle_of, tmp_path):
    ask_all(folders["folder"], tmp_path, oracle_of(), RunOptions("mucue"))
    model = oracle_of()
    ask_all(folders["folder"], tmp_path, model, RunOptions("mucue"))
    assert model.batches == []


def test_bad_audio_is_the_error_of_its_questions_and_the_run_goes_on(oracle_of, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    write_mucue(data, layout="folder")
    planned = plan_run(RunOptions("mucue", conditions=("audio", "text_only")), data)
    (data / "audio" / "gs_key_30s_0.wav").unlink()
    (data / "audio" / "gtzan_key_0.wav").write_bytes(b"RIFF but no more")
    notes = []
    ask_all(data, out, oracle_of(), planned.options, planned, lambda done, total, note: notes.append(note))
    reported = report_run(planned, out)
    failed = [result for result in reported.results if result.error is not None]
    assert {result.song.removeprefix("audio/") for result in failed} == {"gs_key_30s_0.wav", "gtzan_key_0.wav"}
    assert {result.condition for result in failed} == {"audio"}
    assert len(failed) == 12
    assert all(result.reply is None and result.log_probabilities is None for result in failed)
    assert {result.audio_digest is None for result in failed if "gs_key" in result.song} == {True}
    assert not reported.complete
    errors = {each.name: (each.errors, each.ways["generated"].accuracy) for each in reported.report.scores.sets}
    assert errors["gs_key_30s"] == (6, 0.5)
    assert errors["nsyn_pitch"] == (0, 1.0)
    assert any("12 questions ended with an error" in warning for warning in reported.report.warnings)
    assert notes[-1] == "12 with an error"


def test_a_segment_beyond_the_song_is_an_error(oracle_of, tmp_path):
    write_mucue(tmp_path / "data", layout="folder")
    read = read_benchmark("mucue", tmp_path / "data")
    options = RunOptions("mucue", conditions=("audio",))
    beyond = tuple(replace(question, segment=(7.0, 9.0)) for question in read.questions[:1])
    planned = plan_benchmark(options, replace(read, questions=(*beyond, *read.questions[1:])))
    ask_all(tmp_path / "data", tmp_path / "out", oracle_of(), options, planned)
    (failed,) = [result for result in read_folder(tmp_path / "out")[1] if result.error]
    assert failed.id == read.questions[0].id
    assert "7" in str(failed.error)


def test_a_mistake_of_ours_is_not_caught(folders, oracle_of, tmp_path):
    model = oracle_of()
    model.score_questions = lambda questions, options: 1 / 0
    with pytest.raises(ZeroDivisionError):
        ask_all(folders["folder"], tmp_path, model, RunOptions("mucue"))
    model.listener.prompt = lambda question: 1 / 0
    with pytest.raises(ZeroDivisionError):
        ask_all(folders["folder"], tmp_path, model, RunOptions("mucue"))
    assert read_results(tmp_path / "results.jsonl").results == ()


def test_half_a_character_makes_a_bad_row(folders, oracle_of, tmp_path):
    read = read_benchmark("mucue", folders["folder"])
    odd = replace(read.questions[0], id="gs_key_30s/\ud800", prompt=read.questions[0].prompt)
    options = RunOptions("mucue", conditions=("audio",))
    planned = plan_benchmark(options, replace(read, questions=(odd, *read.questions[1:])))
    assert [row.id for row in planned.benchmark.bad_rows] == [r"gs_key_30s/\ud800"]
    ask_all(folders["folder"], tmp_path, oracle_of(), options, planned)
    assert len(read_folder(tmp_path)[1]) == QUESTIONS - 1
    assert not report_run(planned, tmp_path).complete


def test_results_of_other_questions_are_not_reported(folders, oracle_of, tmp_path):
    planned = ask_all(folders["folder"], tmp_path, oracle_of(), RunOptions("mucue", limit=2))
    with pytest.raises(UserError, match=r"results are of other limit \(2 there, 3 here\)"):
        report_run(plan_run(RunOptions("mucue", limit=3), folders["folder"]), tmp_path)
    questions = planned.benchmark.questions
    changed = replace(questions[0], answer=(questions[0].answer + 1) % 4)
    other = replace(planned, benchmark=replace(planned.benchmark, questions=(changed, *questions[1:])))
    with pytest.raises(UserError, match="of other questions_digest"):
        report_run(other, tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rotations": 0}, "rotations 0: at least 1"),
        ({"limit": 0}, "limit 0: at least 1"),
        ({"host": 2, "hosts": 2}, "host 2 of 2: hosts are counted from 0 to 1"),
        ({"conditions": ("silence",)}, "without 'audio'"),
    ],
)
def test_options_that_cannot_be(wrong, said):
    with pytest.raises(UserError, match=said):
        RunOptions("mucue", **wrong)
