import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.asking.choices import prompt_of
from mufun_jax.evaluate.benchmarks.registry import BENCHMARKS, read_benchmark
from tests.evaluate.synthetic_mucue import tone

MUCUE = "Choose the correct option for the question based on the audio. "
MMAU = {
    "id": "1", "audio_id": "./test-mini-audios/1.wav", "question": "Which?", "choices": ["Man", "Woman", "A child"],
    "answer": "A child", "task": "music", "sub-category": "Genre", "category": "Reasoning",
}  # fmt: skip
MMAU_HUB = {
    "context": {"bytes": tone(1), "path": None}, "instruction": "Which?", "choices": ["(A) Man", "(B) Woman"],
    "answer": "(B) Woman", "other_attributes": json.dumps({"id": "1", "task": "music", "sub-category": "Genre"}),
}  # fmt: skip
MMAU_COPY = {
    **MMAU, "audio": {"bytes": tone(2), "path": "x.wav"}, "choices": json.dumps(["Man", "Woman"]), "answer": "man",
}  # fmt: skip
PRO = {
    "id": "1", "audio_path": ["data/a.wav", "data/b.wav"], "question": "Which?", "choices": ["x", "y"], "answer": "y",
    "category": "music",
}  # fmt: skip
MMAR = {
    "id": "1", "audio_path": "./audio/a.wav", "question": "Which?", "choices": ["x", "y"], "answer": "x",
    "modality": "music", "category": "Signal Layer",
}  # fmt: skip
MUCHO = {
    "question": "Which?", "correct_answer": "right", "distractor_1_answer": "w1", "distractor_2_answer": "w2",
    "distractor_3_answer": "w3", "dataset": "sdd", "dataset_identifier": "415600.json",
    "music_knowledge": "['Mood and Expression']", "music_reasoning": "['harmony', 'melody']", "genre": "Ska",
}  # fmt: skip
HUM = {
    "identifier": "q1", "audio": {"bytes": tone(3), "path": "q1.mp3"}, "question": "Which?", "answer": "right",
    "distractor_1": "w1", "distractor_2": "w2", "distractor_3": "w3", "main_category": "Melody",
}  # fmt: skip
CMI = {
    "instruction": "Find the genre from the following list: \nGenres: blues, hip-hop, rock.\nReturn only the name.\n",
    "output": "hiphop", "uuid": "", "split": ["test"], "audio_path": ["data/GTZAN/a.wav"], "audio_start": 0.0,
    "audio_end": 30.0, "task_type": {"major": ["multi_class"], "minor": ["genre_classification"]},
}  # fmt: skip
JSONL = {"question": "Which?", "options": ["x", "y", "z"], "answer": "C", "audio": "a.wav"}


def song(folder: Path, name: str, number: int = 0) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tone(number))


def write(folder: Path, name: str, rows) -> Path:
    """Rows as JSON, JSON lines, CSV or Parquet, by the name."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".json":
            path.write_text(json.dumps(rows, indent=1))
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".csv":
            with path.open("w", newline="") as file:
                table = csv.DictWriter(file, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
    return folder


def only(benchmark):
    assert benchmark.bad_rows == ()
    (question,) = benchmark.questions
    return question


def heard(a_song) -> bytes:
    audio = a_song.load()
    return audio if isinstance(audio, bytes) else audio.read_bytes()


def test_the_names():
    assert BENCHMARKS == ("mucue", "mmau", "mmau-pro", "mmar", "muchomusic", "cmi-bench", "hummusqa", "jsonl")


def test_mmau_as_json(tmp_path):
    song(tmp_path, "test-mini-audios/1.wav")
    rows = [MMAU, {**MMAU, "id": "2", "task": "sound"}, {**MMAU, "id": "3", "task": "speech"}]
    benchmark = read_benchmark("mmau", write(tmp_path, "mmau-test-mini.json", rows))
    question = only(benchmark)
    assert benchmark.groups == {"Genre": "music"}
    assert (question.id, question.set, question.options, question.answer) == (
        "1",
        "Genre",
        ("Man", "Woman", "A child"),
        2,
    )
    assert prompt_of(question, (0, 1, 2)) == f"{MUCUE}Which? A. Man \nB. Woman \nC. A child"
    assert question.source["category"] == "Reasoning"
    assert heard(question.song) == tone(0)


def test_mmau_as_the_hub_has_it(tmp_path):
    other = {**MMAU_HUB, "other_attributes": json.dumps({"id": "2", "task": "sound", "sub-category": "x"})}
    question = only(read_benchmark("mmau", write(tmp_path, "test_mini.parquet", [MMAU_HUB, other])))
    assert (question.id, question.set, question.options, question.answer) == ("1", "Genre", ("Man", "Woman"), 1)
    assert prompt_of(question, (0, 1)) == f"{MUCUE}Which? A. Man \nB. Woman"
    assert heard(question.song) == tone(1)
    write(tmp_path, "test_mini.parquet", [{**MMAU_HUB, "other_attributes": "{}"}])
    with pytest.raises(UserError, match=r"other_attributes is '{}'; expected is JSON with id, task and sub-category"):
        read_benchmark("mmau", tmp_path)


def test_mmau_as_lmms_eval_has_it(tmp_path):
    question = only(read_benchmark("mmau", write(tmp_path, "data/test_mini-00000-of-00001.parquet", [MMAU_COPY])))
    assert (question.options, question.answer) == (("Man", "Woman"), 0)
    assert heard(question.song) == tone(2)


def test_mmau_pro_has_questions_on_several_songs(tmp_path):
    for number, name in enumerate(("data/a.wav", "data/b.wav")):
        song(tmp_path, name, number)
    rows = [PRO, {**PRO, "id": "2", "category": "speech"}, {**PRO, "id": "3", "category": "sound_music"},
            {**PRO, "id": "4", "category": "open", "choices": []}]  # fmt: skip
    benchmark = read_benchmark("mmau-pro", write(tmp_path, "test.parquet", rows))
    assert benchmark.groups == {"music": "music", "sound_music": "sound_music"}
    question, mixed = benchmark.questions
    assert (mixed.id, mixed.set) == ("3", "sound_music")
    assert (question.options, question.answer) == (("x", "y"), 1)
    assert [heard(a_song) for a_song in (question.song, *question.more_songs)] == [tone(0), tone(1)]
    assert [question.id for question in read_benchmark("mmau-pro", tmp_path, ["music"]).questions] == ["1"]


def test_mmar(tmp_path):
    song(tmp_path, "audio/a.wav")
    rows = [MMAR, {**MMAR, "id": "2", "modality": "mix-music-speech"}]
    question = only(read_benchmark("mmar", write(tmp_path, "MMAR-meta.json", rows)))
    assert (question.id, question.set, question.group, question.answer) == ("1", "Signal Layer", "music", 0)
    (tmp_path / "MMAR-meta.json").unlink()
    assert only(read_benchmark("mmar", write(tmp_path, "MMAR-meta.jsonl", rows))) == question


def test_muchomusic(tmp_path):
    song(tmp_path, "data/sdd/audio/00/415600.2min.mp3", 1)
    song(tmp_path, "data/musiccaps/audio/[-0_x]-[30-40].wav", 2)
    caps = {**MUCHO, "dataset": "musiccaps", "dataset_identifier": "-0_x_17.json", "music_reasoning": ""}
    rows = [MUCHO, caps, *[{**MUCHO, "music_knowledge": "[]"}] * 10]
    benchmark = read_benchmark("muchomusic", write(tmp_path, "data/muchomusic.csv", rows))
    assert benchmark.bad_rows == ()
    question, other, *more = benchmark.questions
    assert (question.set, other.set, more[0].set) == ("knowledge and reasoning", "reasoning", "knowledge")
    assert question.source["knowledge"] == ["melody", "harmony"]
    assert question.source["reasoning"] == ["mood and expression"]
    assert question.source["music_reasoning"] == "['harmony', 'melody']"
    assert (heard(question.song), heard(other.song)) == (tone(1), tone(2))
    for question in benchmark.questions:
        assert question.options[question.answer] == "right"
        order = question.source["answer_orders"]
        assert [("right", "w1", "w2", "w3")[place] for place in order] == list(question.options)
    assert len({question.answer for question in benchmark.questions}) > 2
    assert [question.options for question in read_benchmark("muchomusic", tmp_path).questions] == [
        question.options for question in benchmark.questions
    ]
    a, b, c, d = question.options
    assert prompt_of(question, (0, 1, 2, 3)) == (
        f"Question: Which?\n Options: (A) {a} (B) {b} (C) {c} (D) {d} \n The correct answer is: "
    )


def test_hummusqa(tmp_path):
    rows = [{**HUM, "identifier": f"q{number}"} for number in range(12)]
    benchmark = read_benchmark("hummusqa", write(tmp_path, "data/test-00000-of-00001.parquet", rows))
    assert benchmark.groups == {"Melody": "Melody"}
    assert {question.options[question.answer] for question in benchmark.questions} == {"right"}
    assert len({question.answer for question in benchmark.questions}) > 2
    assert heard(benchmark.questions[0].song) == tone(3)
    (tmp_path / "data/test-00000-of-00001.parquet").rename(tmp_path / "data/test-00000-of-00002.parquet")
    with pytest.raises(UserError, match=r"test lacks its parts \[1\]; download it again"):
        read_benchmark("hummusqa", tmp_path)


def test_cmi_bench(tmp_path):
    song(tmp_path, "data/GTZAN/a.wav")
    tags = {**CMI, "task_type": {"major": ["multi-label"], "minor": ["genre_tagging"]}}
    rows = [{**CMI, "split": ["train"]}, CMI, tags, {**CMI, "audio_start": 1.0, "audio_end": 2.5}]
    benchmark = read_benchmark("cmi-bench", write(tmp_path, "data/GTZAN/CMI_GTZAN.jsonl", rows))
    question, part = benchmark.questions
    assert benchmark.groups == {"GTZAN": "genre_classification"}
    assert (question.id, question.options, question.answer) == ("GTZAN/00001", ("blues", "hip-hop", "rock"), 1)
    assert (question.segment, part.segment) == (None, (1.0, 2.5))
    assert prompt_of(question, (0, 1, 2)) == CMI["instruction"]
    assert prompt_of(question, (2, 0, 1)) == CMI["instruction"].replace("blues, hip-hop, rock", "rock, blues, hip-hop")


@pytest.mark.parametrize(
    ("instruction", "output", "options"),
    [
        (
            "Estimate the key. Please choose from C major, Db major, A minor",
            "a minor",
            ("C major", "Db major", "A minor"),
        ),
        ("Is it danced to? Return only yes or no.", "no", ("yes", "no")),
    ],
)
def test_other_lists_of_cmi_bench(tmp_path, instruction, output, options):
    song(tmp_path, "data/GTZAN/a.wav")
    row = {**CMI, "instruction": instruction, "output": output, "uuid": "u1"}
    question = only(read_benchmark("cmi-bench", write(tmp_path, "data/x/CMI_x.jsonl", [row])))
    assert (question.id, question.options, question.answer) == ("x/u1", options, len(options) - 1)
    assert prompt_of(question, tuple(range(len(options)))) == instruction


@pytest.mark.parametrize("answer", ["C", "c", "(C)", 2, "z", " Z. "])
def test_jsonl(tmp_path, answer):
    song(tmp_path, "a.wav", 1)
    song(tmp_path, "b.wav", 2)
    row = {**JSONL, "answer": answer, "audio": ["a.wav", "b.wav"], "segment": [0, 0.2], "set": "s", "group": "g"}
    write(tmp_path, "mine.jsonl", [row])
    benchmark = read_benchmark("jsonl", tmp_path / "mine.jsonl")
    question = only(benchmark)
    assert benchmark.groups == {"s": "g"}
    assert (question.id, question.set, question.group, question.answer) == ("mine/1", "s", "g", 2)
    assert (question.segment, heard(question.song)) == ((0.0, 0.2), tone(1))
    assert [heard(a_song) for a_song in question.more_songs] == [tone(2)]
    assert only(read_benchmark("jsonl", tmp_path)) == question


def test_jsonl_with_a_prompt_and_defaults(tmp_path):
    song(tmp_path, "a.wav")
    write(tmp_path, "mine.jsonl", [{**JSONL, "id": 7, "prompt": "{options}? Answer with a letter: {x}"}])
    benchmark = read_benchmark("jsonl", tmp_path)
    question = only(benchmark)
    assert (question.id, question.set, benchmark.groups) == ("7", "mine", {"mine": "mine"})
    assert prompt_of(question, (0, 1, 2)) == "A. x \nB. y \nC. z? Answer with a letter: {x}"


@pytest.mark.parametrize(
    ("name", "file", "good", "bad", "reason"),
    [
        ("mmau", "mmau-test-mini.json", MMAU, {"answer": "Robot"}, "the answer 'Robot' is none of the options"),
        ("mmau", "mmau-test-mini.json", MMAU, {"answer": None}, "the answer is None"),
        ("mmau", "mmau-test-mini.json", MMAU, {"answer": "C"}, "the answer 'C' is none of the options"),
        ("mmau", "mmau-test-mini.json", MMAU, {"choices": ["Man"]}, "choices has 1 options; from 2 to 26"),
        ("mmau", "mmau-test-mini.json", MMAU, {"choices": ["Man", " "]}, "an option is empty"),
        ("mmau", "mmau-test-mini.json", MMAU, {"choices": "Man"}, "choices is 'Man'; it must be a list"),
        ("mmau", "mmau-test-mini.json", MMAU, {"choices": [1, 2]}, "choices is [1, 2]; it must be a list of texts"),
        ("mmau", "mmau-test-mini.json", MMAU, {"choices": ["Man", "A child",
        "a child."], "answer": "a Child"}, "is 2 of the options"),
        ("mmau", "mmau-test-mini.json", MMAU, {"question": None}, "question is None"),
        ("mmau", "mmau-test-mini.json", MMAU, {"audio_id": "2.wav"}, "no audio file '2.wav'"),
        ("mmau-pro", "test.json", PRO, {"audio_path": []}, "audio_path is []"),
        ("mmau-pro", "test.json", PRO, {"audio_path": ["a.wav", "../b.wav"]}, "leads out of"),
        ("mmau-pro", "test.json", PRO, {"choices": None}, "choices is None"),
        ("mmar", "MMAR-meta.json", MMAR, {"answer": "x\ny"}, "is none of the options"),
        ("muchomusic", "muchomusic.csv", MUCHO, {"dataset": "fma"}, "dataset is 'fma'"),
        ("muchomusic", "muchomusic.csv", MUCHO, {"dataset_identifier": "../1.json"}, "must be a number"),
        ("muchomusic", "muchomusic.csv", MUCHO, {"dataset": "musiccaps"}, "must be YTID_NUMBER"),
        ("muchomusic", "muchomusic.csv", MUCHO, {"dataset": "musiccaps",
        "dataset_identifier": "ab_1"}, "no audio file"),
        ("muchomusic", "muchomusic.csv", MUCHO, {"distractor_1_answer": ""}, "distractor_1_answer is ''"),
        ("cmi-bench", "CMI_x.jsonl", CMI, {"output": "pop"}, "output 'pop' is 0 of the labels"),
        ("cmi-bench", "CMI_x.jsonl", CMI, {"instruction": "Which genre?"}, "lists no labels"),
        ("cmi-bench", "CMI_x.jsonl", CMI, {"instruction": "choose from blues"}, "lists 1 labels"),
        ("cmi-bench", "CMI_x.jsonl", CMI, {"audio_path": []}, "audio_path is []"),
        ("cmi-bench", "CMI_x.jsonl", CMI, {"audio_start": 2, "audio_end": 1}, "not two ascending numbers"),
        ("jsonl", "x.jsonl", JSONL, {"answer": "D"}, "the answer 'D' is none of the options"),
        ("jsonl", "x.jsonl", JSONL, {"answer": 3}, "the answer is 3; as a number it must be"),
        ("jsonl", "x.jsonl", JSONL, {"answer": -1}, "the answer is -1"),
        ("jsonl", "x.jsonl", JSONL, {"answer": True}, "the answer is True"),
        ("jsonl", "x.jsonl", JSONL, {"options": ["B", "A"], "answer": "A"}, "the answer 'A' is 2 of the options"),
        ("jsonl", "x.jsonl", JSONL, {"audio": "../../etc/passwd"}, "leads out of"),
        ("jsonl", "x.jsonl", JSONL, {"audio": []}, "audio is an empty list"),
        ("jsonl", "x.jsonl", JSONL, {"segment": [3, 1]}, "not two ascending numbers"),
        ("jsonl", "x.jsonl", JSONL, {"prompt": "Which?"}, "with {options} in it, once"),
        ("jsonl", "x.jsonl", JSONL, {"group": "other"}, "is of the group 'x' already"),
        ("jsonl", "x.jsonl", JSONL, {"set": 3}, "set is 3; it must be a text"),
        ("jsonl", "x.jsonl", JSONL, {"id": "x/1"}, "the id 'x/1' is there more than once"),
    ],
)  # fmt: skip
def test_bad_rows(tmp_path, name, file, good, bad, reason):
    inside = tmp_path / "inside"
    for audio in ("test-mini-audios/1.wav", "data/a.wav", "data/b.wav", "audio/a.wav", "data/GTZAN/a.wav", "a.wav",
                  "sdd/audio/00/415600.2min.mp3"):  # fmt: skip
        song(inside, audio)
    broken = {**good, **bad}
    if "id" in good:
        broken["id"] = "2"
    benchmark = read_benchmark(name, write(inside, file, [good, broken]))
    assert len(benchmark.questions) == 1
    (row,) = benchmark.bad_rows
    assert reason in row.reason
    assert row.set in benchmark.groups
    assert row.id != benchmark.questions[0].id


def test_a_field_that_a_later_row_lacks_makes_it_bad(tmp_path):
    song(tmp_path, "audio/a.wav")
    write(tmp_path, "MMAR-meta.json", [MMAR, {"modality": "music"}])
    (row,) = read_benchmark("mmar", tmp_path).bad_rows
    assert (row.id, row.set, row.reason) == ("row 1", "no category", "choices is None; it must be a list of texts")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_not_the_benchmark_is_refused(tmp_path, name):
    with pytest.raises(UserError, match=r"no such f"):
        read_benchmark(name, tmp_path / "none")
    with pytest.raises(UserError, match=r"no .* in it; expected "):
        read_benchmark(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [("mmau", "mmau-test-mini.json"), ("mmau", "test_mini.parquet"), ("mmau-pro", "test.parquet"),
    ("mmar", "MMAR-meta.json"),
     ("muchomusic", "muchomusic.csv"), ("hummusqa", "data/test-00000-of-00001.parquet"), ("cmi-bench", "CMI_x.jsonl"),
     ("jsonl", "x.jsonl")],
)  # fmt: skip
def test_other_records_are_refused_at_once(tmp_path, name, file):
    with pytest.raises(UserError, match=r"its records have no field .* expected are"):
        read_benchmark(name, write(tmp_path, file, [{"label": "x", "text": "y"}]))


def test_no_music_in_it(tmp_path):
    with pytest.raises(UserError, match=r"no question of mmar that can be asked here"):
        read_benchmark("mmar", write(tmp_path, "MMAR-meta.json", [{**MMAR, "modality": "speech"}]))


def test_unknown_sets(tmp_path):
    song(tmp_path, "audio/a.wav")
    with pytest.raises(UserError, match=r"no set 'Signal layer' in mmar \(did you mean 'Signal Layer'\?\); there are"):
        read_benchmark("mmar", write(tmp_path, "MMAR-meta.json", [MMAR]), ["Signal layer"])


def test_a_torn_csv_is_refused(tmp_path):
    write(tmp_path, "muchomusic.csv", [MUCHO])
    with (tmp_path / "muchomusic.csv").open("a") as file:
        file.write("What,is\n")
    with pytest.raises(UserError, match=r"line 3: has not as many cells as the heading names"):
        read_benchmark("muchomusic", tmp_path)
    (tmp_path / "muchomusic.csv").write_text('question\n"open')
    with pytest.raises(UserError, match=r"is not CSV"):
        read_benchmark("muchomusic", tmp_path)
