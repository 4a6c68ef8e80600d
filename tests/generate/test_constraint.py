"""Constrained answers of a random model, which would never say any of it by itself: they always parse."""

import json
import re

import jsonschema
import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.constraint import Constraint
from mufun_jax.generate.question import make_question
from mufun_jax.generate.sample import Sampling
from mufun_jax.generate.scoring import answer_tokens
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.tokenizer import load_tokenizer
from tests.tiny import random_params, tiny_decoder, tiny_encoder, tiny_model

CONFIG = tiny_model(tiny_encoder(layers=1, taps=(1,)), tiny_decoder(vocab_size=520, layers=1), max_windows=4)
SCHEMA = {
    "type": "object",
    "properties": {
        "genre": {"enum": ["rock", "jazz"]},
        "tempo": {"type": "integer", "minimum": 40, "maximum": 250},
        "moods": {"type": "array", "items": {"type": "string", "maxLength": 4}, "minItems": 1, "maxItems": 2},
    },
    "required": ["genre", "tempo", "moods"],
    "additionalProperties": False,
}
QUESTIONS = [make_question("Describe it."), make_question("What is the key?")]


@pytest.fixture(scope="module")
def model() -> MuFun:
    return MuFun(MuFunModel(CONFIG), random_params(CONFIG), load_tokenizer("nano"), inference_mesh())


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(3.0, top_p=0.9)], ids=["greedy", "1", "3"])
def test_json_is_what_the_schema_says(model, sampling):
    answers = model.answer(
        QUESTIONS, constraint=Constraint.json(SCHEMA), sampling=sampling, seed=[1, 2], max_new_tokens=200
    )
    for answer in answers:
        jsonschema.validate(json.loads(answer.text), SCHEMA)
        assert answer.finish == "stop"
        assert len(answer.tokens) == len(answer.log_probabilities)
    assert sampling.temperature == 0 or answers[0].text != answers[1].text


def test_a_regular_expression_and_choices(model):
    for seed in range(5):
        options = dict(max_new_tokens=30, temperature=2.0, seed=seed)
        said = model.chat("How fast?", constraint=Constraint.regex(r"\d{2,3} bpm/min(ute)?"), **options)
        assert re.fullmatch(r"\d{2,3} bpm/min(ute)?", said)
        choices = ['C "major"', "a minor, or so", "f♯ minor"]
        assert model.chat("Key?", constraint=Constraint.choices(choices), **options) in choices


def test_a_greedy_choice_is_the_likeliest_by_steps(model):
    """The first token in which two choices differ decides, as the plain logits have it."""
    logits = model.logits("Key?")
    letters = {letter: answer_tokens(model.tokenizer, make_question("Key?"), letter)[0] for letter in "ABCD"}
    best = max(letters, key=lambda letter: logits[letters[letter]])
    assert len(set(letters.values())) == 4
    assert model.chat("Key?", constraint=Constraint.choices(["A", "B", "C", "D"])) == best


def test_an_answer_that_does_not_fit_the_limit_is_an_error(model):
    with pytest.raises(UserError, match=r"not complete after 4 tokens: .*; allow more \(max_new_tokens\)"):
        model.chat("Describe it.", constraint=Constraint.json(SCHEMA), max_new_tokens=4)
    (answer,) = model.answer([make_question("Describe it.")], constraint=Constraint.json(SCHEMA), max_new_tokens=4)
    assert (answer.finish, answer.text[0]) == ("length", "{")
    with pytest.raises(UserError, match="before its form is complete"):
        model.chat("Describe it.", constraint=Constraint.json(SCHEMA), stop=["}"])


@pytest.mark.parametrize(
    "make, what",
    [
        (lambda: Constraint.json("{no json"), "is no JSON"),
        (lambda: Constraint.json("[1]"), "must be an object"),
        (lambda: Constraint.regex(""), "is empty"),
        (lambda: Constraint.choices([]), "give a list of answers"),
        (lambda: Constraint.choices("ABCD"), "give a list of answers"),
        (lambda: Constraint.regex("a" * 200_000), "has 200000 characters"),
    ],
)
def test_what_is_no_form(make, what):
    with pytest.raises(UserError, match=what):
        make()


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint.regex("(unclosed"),
        Constraint.json({"type": "nonsense"}),
        Constraint.json({"$ref": "https://example.com/schema.json"}),
    ],
)
def test_a_form_that_cannot_be_used_is_said_to_be(model, constraint):
    with pytest.raises(UserError, match="the answer's form cannot be used"):
        model.chat("Key?", constraint=constraint)


def test_without_a_schema_any_object(model):
    """It may never close what it has opened; where it does, it is an object."""
    whole = 0
    for seed in range(8):
        try:
            said = model.chat(
                "Describe it.", constraint=Constraint.json(), max_new_tokens=60, temperature=1.0, seed=seed
            )
        except UserError:
            continue
        whole += isinstance(json.loads(said), dict)
    assert whole


def test_streamed_json_is_the_same(model):
    arguments = dict(constraint=Constraint.json(SCHEMA), max_new_tokens=200)
    assert "".join(model.stream("Describe it.", **arguments)) == model.chat("Describe it.", **arguments)
    assert np.isfinite(model.answer(QUESTIONS[:1], **arguments)[0].log_probabilities).all()
