"""A real model of random weights is asked: what stands beside a row changes nothing of it."""

import random
from dataclasses import replace
from functools import cache

import pytest

from mufun_jax.evaluate.benchmark_run import RunOptions, plan_benchmark
from mufun_jax.evaluate.benchmarks.registry import read_benchmark
from mufun_jax.evaluate.results_file import key_of, read_folder
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.constraint import Constraint
from tests.benchmarks.benchmark_speed import QUESTIONS, check_same, rows_of, together, without_reuse
from tests.evaluate.fake_mufun import ask_all
from tests.evaluate.synthetic_mucue import write_mucue

CONDITIONS = ("audio", "text_only")
ROWS = 4


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return MuFun.from_pretrained(tiny_checkpoint, "float32")


@pytest.fixture(scope="module")
def asked(model, tmp_path_factory):
    """Asks a small benchmark, in an order and on hosts as said; gives the results by their keys."""
    data = tmp_path_factory.mktemp("mucue")
    write_mucue(data, layout="folder", sets={"gtzan_key": 2, "nsyn_pitch": 2}, questions_a_song=2)
    read = read_benchmark("mucue", data)

    @cache
    def ask(rows, hosts=1, order=None):
        out = tmp_path_factory.mktemp("out")
        questions = read.questions if order is None else random.Random(order).sample(read.questions, 4)
        for host in reversed(range(hosts)):
            options = RunOptions("mucue", conditions=CONDITIONS, rows=rows, host=host, hosts=hosts)
            planned = plan_benchmark(options, replace(read, questions=tuple(questions)))
            ask_all(data, out, model, options, planned)
        return {key_of(result): result for result in read_folder(out)[1]}

    return ask


def test_order_and_hosts_change_not_a_bit(asked):
    one = asked(rows=ROWS)
    assert len(one) == 4 * 2
    assert len({result.reply for result in one.values()}) > 4
    assert asked(rows=ROWS, order=1, hosts=2) == one


@pytest.mark.slow
def test_the_batch_size_changes_no_prediction(asked):
    """Log-probabilities may differ in their last bits, for matrices of other sizes are summed in another order."""
    one, other = asked(rows=ROWS), asked(rows=2)
    assert one.keys() == other.keys()
    for key, result in one.items():
        plain, there = (replace(each, log_probabilities=None) for each in (result, other[key]))
        assert plain == there
        assert result.log_probabilities and numbers(result) == pytest.approx(numbers(other[key]), rel=1e-5, abs=1e-4)


def numbers(result):
    return [value for each in result.log_probabilities for value in (each.letter, each.text, each.text_tokens)]


def test_a_row_says_what_the_model_says_alone(asked, model):
    silent = [result for result in asked(rows=ROWS).values() if result.condition == "text_only"]
    for result in silent[:2]:
        options = [line[3:] for line in result.prompt.split("? ")[1].split(" \n")]
        assert model.chat(result.prompt) == result.reply
        letters = model.score(result.prompt, options=list("ABCD"))
        texts = model.score(result.prompt, options=options)
        alone = [
            value
            for letter, text in zip(letters, texts, strict=True)
            for value in (letter.log_probability, text.log_probability, text.tokens)
        ]
        assert numbers(result) == pytest.approx(alone, rel=1e-5, abs=1e-4)
        choice = model.chat(result.prompt, constraint=Constraint.choices(list("ABCD")))
        assert result.constrained == "ABCD".index(choice)


@pytest.mark.slow
def test_a_song_is_computed_once_for_all_that_is_asked_of_it(model, tmp_path, monkeypatch):
    """What without reuse is computed three times a question; `make bench` takes the time of it."""
    songs, runs, run = 2, [], model.engine._run_prefix
    monkeypatch.setattr(model.engine, "_run_prefix", lambda prompt: (runs.append(1), run(prompt))[1])
    rows = rows_of(tmp_path, 2.0, songs)
    assert len(rows) == QUESTIONS * songs
    shared = together(model, rows)
    assert len(runs) == songs
    runs.clear()
    check_same(without_reuse(model, rows), shared)
    assert len(runs) == 3 * QUESTIONS * songs
