"""Result files for other scorers, read back by rules that we wrote from what those scorers do."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import BenchmarkQuestion, Song
from mufun_jax.evaluate.exporters.answered import Prediction
from mufun_jax.evaluate.exporters.registry import EXPORTERS, export_results
from tests.evaluate.results import Model, failed, result_of

OPTIONS = ("Classical", "Blues and rock", "disco", "Drum & bass")
MODELS = ("oracle", "always_b", "mute")


def asked(model: Model = "oracle", count=12, name="mini", **source):
    """Questions and their results; the source row is what is given, with its own `id`."""
    found = [replace(result_of(model, name, "genre", i), set=name) for i in range(count)]
    questions = [
        BenchmarkQuestion(
            id=result.id,
            set=name,
            group="genre",
            song=Song("a.wav", lambda: b""),
            prompt="Which? {options}",
            options=OPTIONS,
            answer=result.gold,
            source={"id": f"row {i}", "audio": {"bytes": b"xx", "path": None}} | source,
        )
        for i, result in enumerate(found)
    ]
    return questions, found


def export(format, folder, model: Model = "oracle", prediction: Prediction = "choice", **source):
    questions, found = asked(model, **source)
    files = export_results(format, folder, questions, found, model="mufun", prediction=prediction)
    return questions, found, files


def words(text):
    return set(re.findall(r"\b\w+\b", text.lower()))


def mmau_is_right(row, answer, key):
    """All words of the answer, and none that only the others have."""
    others = set().union(*(words(choice) for choice in row["choices"] if choice != answer)) - words(answer)
    said = words(row[key])
    return words(answer) <= said and not said & others


def muchomusic_choice(row):
    letters = set("ABCD") & set(row["model_output"])
    if len(letters) == 1:
        return "ABCD".index(letters.pop())
    said = row["model_output"].lower().strip()
    return next((i for i, answer in enumerate(row["answers"]) if answer.lower() in said), -1)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("format", "keys"),
    [("mmau", ("model_output", "model_prediction")), ("mmar", ("answer_prediction", "model_prediction"))],
)
def test_mmau_and_mmar(tmp_path, model, format, keys):
    choices = [f"({letter}) {text}" for letter, text in zip("ABCD", OPTIONS, strict=True)]
    questions, found, (path,) = export(format, tmp_path, model, choices=choices, answer="?")
    rows = json.loads(path.read_text())
    assert path.name == f"{format}.json"
    for row, question, result in zip(rows, questions, found, strict=True):
        assert row["id"] == question.source["id"] and "audio" not in row
        for key in keys:
            assert mmau_is_right(row, choices[question.answer], key) is (result.letter == result.gold)


@pytest.mark.parametrize("model", MODELS)
def test_muchomusic(tmp_path, model):
    tags = {"music_reasoning": "['mood']", "knowledge": ["genre"], "genre": "rock"}
    _, found, (path,) = export("muchomusic", tmp_path, model, **tags)
    for row, result in zip(json.loads(path.read_text()), found, strict=True):
        chosen = muchomusic_choice(row)
        assert (chosen == row["answer_orders"].index(0)) is (result.letter == result.gold)
        assert (chosen == -1) is (model == "mute")
        assert (row["reasoning"], row["knowledge"], row["genre"]) == (["mood"], ["genre"], "rock")
        assert sorted(row["answer_orders"]) == [0, 1, 2, 3]
        assert row["answers"] == [OPTIONS[place] for place in result.option_order]


def test_muchomusics_categories_are_read_and_nothing_is_run(tmp_path):
    for value in ("__import__('os').system('false')", "{'a': 1}", "[1]", "[" * 20_000):
        with pytest.raises(UserError, match="reasoning is"):
            export("muchomusic", tmp_path, reasoning=value)
    _, _, (path,) = export("muchomusic", tmp_path, reasoning="")
    assert json.loads(path.read_text())[0]["reasoning"] == []


@pytest.mark.parametrize("model", MODELS)
def test_cmi_bench(tmp_path, model):
    questions, found, (path,) = export("cmi_bench", tmp_path, model)
    assert path == tmp_path / "mufun" / "mufun_mini.jsonl"
    for row, question, result in zip(json.loads(path.read_text()), questions, found, strict=True):
        assert row["correct_answer"] == OPTIONS[question.answer]
        assert (row["response"] == row["correct_answer"]) is (result.letter == result.gold)
    _, _, (path,) = export("cmi_bench", tmp_path, correct_answer="as they word it")
    assert json.loads(path.read_text())[0]["correct_answer"] == "as they word it"


@pytest.mark.parametrize("model", MODELS)
def test_lmms_eval(tmp_path, model):
    _, found, (path,) = export("lmms_eval", tmp_path, model)
    assert path.name == "samples_mini.jsonl"
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert [sample["doc_id"] for sample in samples] == list(range(12))
    for sample, result in zip(samples, found, strict=True):
        assert sample["exact_match"] == float(sample["filtered_resps"] == [sample["target"]])
        assert sample["exact_match"] == float(result.letter == result.gold)
        assert (sample["resps"], sample["input"]) == ([[result.reply]], result.prompt)
        assert len(sample["doc_hash"]) == 64
    assert len({sample["doc_hash"] for sample in samples}) == 12


@pytest.mark.parametrize("format", EXPORTERS)
def test_the_raw_reply_if_asked_for_and_nothing_for_an_error(tmp_path, format):
    questions, found = asked()
    found[1] = failed(found[1])
    elsewhere = [replace(result, reply="from silence", condition="silence") for result in found]
    elsewhere += [replace(result, reply="turned", rotation=1) for result in found]
    (path,) = export_results(format, tmp_path, questions, found + elsewhere, model="mufun", prediction="reply")
    text = path.read_text()
    rows = [json.loads(line) for line in text.splitlines()] if format == "lmms_eval" else json.loads(text)
    keys = {"mmau": "model_output", "mmar": "answer_prediction", "muchomusic": "model_output", "cmi_bench": "response"}
    said = [row[keys[format]] if format in keys else row["filtered_resps"][0] for row in rows]
    assert said == [result.reply or "" for result in found]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_run_that_is_not_finished_or_of_another_benchmark(tmp_path):
    questions, found = asked()
    elsewhere = [replace(result, condition="silence") for result in found[:1]]
    with pytest.raises(UserError, match="question 'mini-11' has no result with its song; finish the run"):
        export_results("mmau", tmp_path, questions, found[:-1] + elsewhere, model="m")
    with pytest.raises(UserError, match="its result is of 4 options with answer"):
        export_results(
            "mmau", tmp_path, questions, [replace(found[0], gold=(found[0].gold + 1) % 4), *found[1:]], model="m"
        )
    with pytest.raises(UserError, match="no questions"):
        export_results("mmau", tmp_path, [], found, model="m")
    assert not list(tmp_path.iterdir())


def test_names_that_lead_out_of_the_folder(tmp_path):
    for format, name in (("lmms_eval", "../../x"), ("cmi_bench", "a/b"), ("lmms_eval", ".hidden"), ("cmi_bench", "")):
        questions, found = asked(name=name)
        with pytest.raises(UserError, match=r"the set .* cannot be a file's name"):
            export_results(format, tmp_path / "in", questions, found, model="m")
    questions, found = asked()
    with pytest.raises(UserError, match="the model's name '/etc/x'"):
        export_results("cmi_bench", tmp_path, questions, found, model="/etc/x")
    assert [path for path in Path(tmp_path).rglob("*") if path.is_file()] == []


def test_a_row_that_is_no_json(tmp_path):
    with pytest.raises(UserError, match=r"mmau.json: a row of the benchmark cannot be written as JSON"):
        export("mmau", tmp_path, when=Path("x"))


def test_a_misspelt_format():
    with pytest.raises(UserError, match=r"no exporter 'mmua' \(did you mean 'mmau'\?\)"):
        export_results("mmua", Path("x"), [], [], model="m")
