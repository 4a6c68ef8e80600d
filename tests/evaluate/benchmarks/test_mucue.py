import json
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.asking.choices import prompt_of
from mufun_jax.evaluate.benchmarks.mucue import read_mucue, set_groups
from mufun_jax.evaluate.benchmarks.registry import read_benchmark
from tests.evaluate.synthetic_mucue import SETS, tone, write_mucue, write_parquet_rows

ROW = {
    "audio": {"bytes": tone(0), "path": "a.wav"},
    "question": "Which?",
    "choices_text": "A. red \nB. green \nC. blue \nD. white",
    "correct_choice": "B",
    "time_seg": [],
}


def heard(song) -> bytes:
    audio = song.load()
    return audio if isinstance(audio, bytes) else audio.read_bytes()


def one_set(folder: Path, rows, name="gtzan") -> Path:
    """A folder of one set in JSON lines, beside `a.wav`."""
    (folder / "a.wav").write_bytes(tone(0))
    (folder / f"{name}.jsonl").write_text("".join(json.dumps({**ROW, "audio": "a.wav", **row}) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("layout", ["parquet", "folder"])
def test_all_of_it_is_read(tmp_path, layout):
    write_mucue(tmp_path, layout=layout)
    benchmark = read_benchmark("mucue", tmp_path)
    assert benchmark.name == "mucue"
    assert benchmark.bad_rows == ()
    assert Counter(question.set for question in benchmark.questions) == SETS
    assert benchmark.groups == {
        "gs_key_30s": "key", "gtzan_key": "key", "nsyn_pitch": "pitch", "mmau_music": "comprehensive",
    }  # fmt: skip
    first = benchmark.questions[0]
    assert (first.id, first.set, first.group) == ("gs_key_30s/00000", "gs_key_30s", "key")
    assert first.options[first.answer] in first.source["choices_text"]
    assert first.source["correct_choice"] == "ABCD"[first.answer]
    assert prompt_of(first, (0, 1, 2, 3)) == (
        "Choose the correct option for the question based on the audio. "
        f"What is planted in song 0 of gs_key_30s, question 0? {first.source['choices_text']}"
    )
    assert [question.segment for question in benchmark.questions[:3]] == [None, None, (0.1, 0.2)]
    assert "bytes" not in str(first.source)
    # Song by song, in the order of the sets: 2 + 2 + 2 + 2 songs of at most 6 questions.
    keys = [question.song.key for question in benchmark.questions]
    assert [len(list(group)) for group in runs(keys)] == [6, 6, 6, 1, 6, 3, 6, 2]
    songs = {question.song.key: question.song for question in benchmark.questions}
    assert [heard(song) for song in songs.values()] == [tone(number) for number in range(8)]


def runs(values):
    found = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1].append(value)
        else:
            found.append([value])
    return found


def test_both_layouts_ask_the_same(tmp_path):
    for layout in ("parquet", "folder"):
        write_mucue(tmp_path / layout, layout=layout, seed=3)
    parquet, folder = (read_mucue(tmp_path / layout) for layout in ("parquet", "folder"))
    for one, other in zip(parquet.questions, folder.questions, strict=True):
        assert (one.id, one.prompt, one.options, one.answer, one.segment, one.layout, one.options_text) == (
            other.id, other.prompt, other.options, other.answer, other.segment, other.layout, other.options_text,
        )  # fmt: skip
        assert heard(one.song) == heard(other.song)


def test_another_seed_plants_other_answers(tmp_path):
    answers = []
    for seed in (0, 1):
        write_mucue(tmp_path / str(seed), layout="folder", seed=seed)
        answers.append([question.answer for question in read_mucue(tmp_path / str(seed)).questions])
    assert answers[0] != answers[1]
    assert set(answers[0]) == {0, 1, 2, 3}


def test_some_sets_by_either_spelling(tmp_path):
    write_mucue(tmp_path, layout="folder")
    (tmp_path / "mmau_music.jsonl").rename(tmp_path / "mmau-music.jsonl")
    benchmark = read_mucue(tmp_path, ["mmau-music", "gtzan_key"])
    assert list(benchmark.groups) == ["gtzan_key", "mmau_music"]
    assert {question.set for question in benchmark.questions} == {"gtzan_key", "mmau_music"}


def test_the_27_sets():
    groups = set_groups()
    assert len(groups) == 27
    assert list(groups)[-1] == "gs_key"
    assert groups["fma_small"] == "genre"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"choices_text": "A. red\nB. green\nC. blue"}, "no four options"),
        ({"choices_text": None}, "choices_text is None; it must be a text"),
        ({"choices_text": "A. red B. green B. blue C. white D. pink"}, "more than one way"),
        ({"question": "  "}, "question is '  '; it must be a text"),
        ({"question": "Is {options} there?"}, "question holds '{options}'"),
        ({"question": "x" * 100_001}, "question has 100001 characters"),
        ({"correct_choice": "E"}, "correct_choice is 'E'; it must be a letter from A to D"),
        ({"correct_choice": 1}, "correct_choice is 1"),
        ({"correct_choice": ""}, "correct_choice is ''"),
        ({"audio": "b.wav"}, "no audio file 'b.wav'"),
        ({"audio": ""}, "the audio is ''"),
        ({"audio": None}, "the audio is None"),
        ({"audio": "../outside.wav"}, "leads out of the benchmark's folder"),
        ({"audio": "..\\outside.wav"}, "leads out of the benchmark's folder"),
        ({"audio": "/etc/passwd"}, "leads out of the benchmark's folder"),
        ({"audio": "link.wav"}, "is a link to"),
        ({"time_seg": [3]}, "the segment [3] is not [start, end] in seconds"),
        ({"time_seg": [3, 2]}, "the segment [3, 2] is not two ascending numbers from 0"),
        ({"time_seg": [2, 2]}, "not two ascending numbers"),
        ({"time_seg": [-1, 2]}, "not two ascending numbers"),
        ({"time_seg": ["0", "2"]}, "not two numbers"),
        ({"time_seg": [False, True]}, "not two numbers"),
        ({"time_seg": [0, float("inf")]}, "not two numbers"),
        ({"time_seg": "all"}, "the segment 'all' is not [start, end] in seconds"),
        ({"time_seg": 7}, "the segment 7 is not [start, end] in seconds"),
        ({"id": "00000"}, "the id 'gtzan/00000' is there more than once"),
    ],
)
def test_a_bad_row_is_kept_with_its_reason(tmp_path, row, reason):
    inside = tmp_path / "mucue"
    inside.mkdir()
    (tmp_path / "outside.wav").write_bytes(tone(0))
    (inside / "link.wav").symlink_to(tmp_path / "outside.wav")
    benchmark = read_mucue(one_set(inside, [{}, row, {}]))
    assert [question.id for question in benchmark.questions] == ["gtzan/00000", "gtzan/00002"]
    (bad,) = benchmark.bad_rows
    assert bad.set == "gtzan"
    assert bad.id == ("gtzan/00000#2" if "id" in row else "gtzan/00001")
    assert reason in bad.reason


@pytest.mark.parametrize(
    ("row", "segment"),
    [({"time_seg": None}, None), ({"time_seg": " "}, None), ({"time_seg": [0, 2]}, (0.0, 2.0)),
     ({"time_seg": "[1.5, 2]"}, (1.5, 2.0)), ({"correct_choice": " (b)."}, None)],
)  # fmt: skip
def test_what_is_read_leniently(tmp_path, row, segment):
    benchmark = read_mucue(one_set(tmp_path, [row]))
    assert benchmark.bad_rows == ()
    assert (benchmark.questions[0].segment, benchmark.questions[0].answer) == (segment, 1)


def test_the_options_stand_as_the_benchmark_has_them(tmp_path):
    text = "A. red\nB. green\n\nC.blue\nD. white \n"
    (question,) = read_mucue(one_set(tmp_path, [{"choices_text": text}])).questions
    assert question.options == ("red", "green", "blue", "white")
    assert prompt_of(question, (0, 1, 2, 3)).endswith(f"Which? {text}")


def test_a_json_list_and_a_folder_a_set(tmp_path):
    place = tmp_path / "records"
    place.mkdir()
    (tmp_path / "a.wav").write_bytes(tone(1))
    (place / "b.wav").write_bytes(tone(2))
    (place / "gtzan.json").write_text(json.dumps([{**ROW, "audio": "./a.wav"}, {**ROW, "audio": "b.wav"}]))
    songs = [question.song for question in read_mucue(tmp_path).questions]
    assert [song.key for song in songs] == ["a.wav", "records/b.wav"]
    assert [heard(song) for song in songs] == [tone(1), tone(2)]


def refused(folder, match, sets=None):
    with pytest.raises(UserError, match=match) as error:
        read_mucue(folder, sets)
    assert "\n" not in str(error.value)


def test_what_is_not_mucue_is_refused_at_once(tmp_path):
    refused(tmp_path / "none", r"no such folder")
    refused(tmp_path, r"no MuCUE in it; expected are data/SET-00000-of-00001\.parquet")
    (tmp_path / "gtzan_kee.jsonl").write_text("{}")
    refused(tmp_path, r"MuCUE has no set 'gtzan_kee' \(did you mean 'gtzan_key'\?\)")
    (tmp_path / "gtzan_kee.jsonl").rename(tmp_path / "gtzan_key.jsonl")
    refused(tmp_path, r"is not of MuCUE: its records have no field 'audio', .* expected are 'audio', 'question'")
    (tmp_path / "gtzan_key.jsonl").write_text("")
    refused(tmp_path, r"gtzan_key\.jsonl: is empty")
    (tmp_path / "gtzan_key.jsonl").write_text("[1]")
    refused(tmp_path, r"entry 1: is a int; an object")
    (tmp_path / "gtzan_key.jsonl").write_text('{"a": ')
    refused(tmp_path, r"line 1: is not JSON")
    (tmp_path / "gtzan_key.jsonl").write_bytes(b'{"a": "\xff"}')
    refused(tmp_path, r"is not UTF-8")
    (tmp_path / "gtzan_key.jsonl").rename(tmp_path / "gtzan_key.parquet")
    refused(tmp_path, r"gtzan_key\.parquet: is no Parquet file, or a damaged one")


def test_parquet_of_something_else_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"audio": [b"x"], "label": [1]}), tmp_path / "gtzan.parquet")
    refused(tmp_path, r"no field 'question', 'choices_text', 'correct_choice', 'time_seg', only 'label', 'audio'")


def test_unknown_and_absent_sets(tmp_path):
    one_set(tmp_path, [{}])
    refused(tmp_path, r"no set 'gtzen' in MuCUE \(did you mean 'gtzan'\?\)", ["gtzen"])
    refused(tmp_path, r"the set 'nsyn_pitch' is not in it; there are gtzan", ["nsyn_pitch"])
    with pytest.raises(UserError, match=r"no benchmark 'mucoe' \(did you mean 'mucue'\?\)"):
        read_benchmark("mucoe", tmp_path)


def test_a_set_that_is_not_whole_or_there_twice(tmp_path):
    write_mucue(tmp_path, layout="parquet")
    part = tmp_path / "data" / "gs_key_30s-00001-of-00002.parquet"
    part.rename(tmp_path / "kept")
    refused(tmp_path, r"the set gs_key_30s lacks its parts \[1\]; download it again")
    (tmp_path / "kept").rename(tmp_path / "data" / "gs_key_30s-00001-of-00003.parquet")
    refused(tmp_path, r"the set gs_key_30s is there in parts of different versions")
    (tmp_path / "data" / "gs_key_30s-00001-of-00003.parquet").rename(part)
    one_set(tmp_path, [{}], "gtzan_key")
    refused(tmp_path, r"the set gtzan_key is in .*; leave one of them")


def test_rows_without_bytes_name_a_file(tmp_path):
    (tmp_path / "a.wav").write_bytes(tone(5))
    rows = [{**ROW, "audio": {"bytes": None, "path": name}} for name in ("a.wav", "b.wav", None)]
    write_parquet_rows(tmp_path / "gtzan.parquet", [*rows, {**ROW, "audio": None}, {**ROW, "audio": {"bytes": b""}}])
    benchmark = read_mucue(tmp_path)
    assert [heard(question.song) for question in benchmark.questions] == [tone(5)]
    assert len(benchmark.bad_rows) == 4


def test_memory_does_not_grow_with_the_audio(tmp_path):
    """20 songs of 1 MB are read, and one again, with no more than a few of them in memory."""
    import pyarrow as pa

    size = 1 << 20
    rows = [{**ROW, "audio": {"bytes": bytes([number]) * size, "path": None}} for number in range(20)]
    write_parquet_rows(tmp_path / "gtzan.parquet", rows)
    del rows
    before, peak = pa.total_allocated_bytes(), pa.default_memory_pool().max_memory() or 0
    tracemalloc.start()
    benchmark = read_mucue(tmp_path)
    assert benchmark.questions[13].song.load() == bytes([13]) * size
    assert tracemalloc.get_traced_memory()[1] < 4 * size
    tracemalloc.stop()
    assert pa.total_allocated_bytes() - before < 4 * size
    assert (pa.default_memory_pool().max_memory() or 0) <= max(peak, before + 14 * size)


def test_a_file_that_changed_is_told(tmp_path):
    write_parquet_rows(tmp_path / "gtzan.parquet", [ROW] * 4)
    songs = [question.song for question in read_mucue(tmp_path).questions]
    write_parquet_rows(tmp_path / "gtzan.parquet", [{**ROW, "audio": {"bytes": tone(1), "path": "a.wav"}}, ROW])
    for number in (0, 3):
        with pytest.raises(UserError, match=rf"row {number} has not the audio any more that it had"):
            songs[number].load()
    assert songs[1].load() == tone(0)
    (tmp_path / "gtzan.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"row 0: the audio cannot be read any more"):
        songs[0].load()


def test_pyarrow_is_named_where_it_is_missing(tmp_path, monkeypatch):
    write_parquet_rows(tmp_path / "gtzan.parquet", [ROW])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path, r"needs pyarrow, which is not installed: pip install 'mufun_jax\[evaluate\]'")
