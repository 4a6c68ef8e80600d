"""The engine: a song is computed once, a program compiled once, and no answer depends on either."""

import pickle
from typing import Any

import jax
import numpy as np
import pytest

from mufun_jax import errors
from mufun_jax.config import MeshConfig
from mufun_jax.errors import UserError
from mufun_jax.generate import decode
from mufun_jax.generate.question import make_question
from mufun_jax.generate.sample import Sampling
from mufun_jax.sharding.mesh import make_mesh
from tests.generate.conftest import CONFIG, make_model

NEW = 6
PROGRAMS: tuple[Any, ...] = (
    decode.run_prefix,
    decode.stack,
    decode.begin,
    decode.advance,
    decode.option_log_probabilities,
)


@pytest.fixture(scope="module")
def questions(song):
    """Two songs, questions of several lengths about each, one with turns before it, and one about none."""
    one, other = song(2.6), song(2.9, "other")
    asked = "What is played here, and by whom, and how fast is it?"
    return [
        make_question("key?", one),
        make_question(asked, one),
        make_question("key?", other),
        make_question("And its key?", one, history=[("<audio>\nWhat is it?", "A song."), ("Is it?", "Yes.")]),
        make_question("What is a key?"),
        make_question("tempo?", other),
    ]


def counted(model, monkeypatch) -> list[bytes]:
    """The digests of all prefixes that are computed from now on."""
    made, run = [], model.engine._run_prefix
    monkeypatch.setattr(model.engine, "_run_prefix", lambda prompt: (made.append(prompt.digest), run(prompt))[1])
    return made


def texts(answers) -> list[tuple[int, ...]]:
    return [answer.tokens for answer in answers]


def test_a_song_is_computed_once_and_answers_are_those_without(model, questions, monkeypatch):
    made = counted(model, monkeypatch)
    together = model.answer(questions, max_new_tokens=NEW)
    assert len(made) == len(set(made)) == 2, "a song's turns are text that follows it"
    assert texts(model.answer(questions[::-1], max_new_tokens=NEW))[::-1] == texts(together)
    chat = model.chat("key?", questions[0].audio_files[0], max_new_tokens=NEW)
    assert (chat, len(made)) == (together[0].text, 2)
    for question, expected in zip(questions, together, strict=True):
        model.engine.forget()
        (alone,) = model.answer([question], max_new_tokens=NEW)
        assert alone.tokens == expected.tokens
        np.testing.assert_allclose(alone.log_probabilities, expected.log_probabilities, rtol=1e-5, atol=1e-5)
    assert len(made) == 2 + 5


def test_the_next_turn_goes_on_from_the_song(model, song, monkeypatch):
    """A song in the first turn: later turns are text after it."""
    path, made = song(2.6), counted(model, monkeypatch)
    model.engine.forget()
    history: list[tuple[str, str]] = []
    for asked in ("<audio>\nWhat is it?", "And its key?", "And its tempo?"):
        history.append((asked, model.chat(asked, path, history=history, max_new_tokens=NEW) or "-"))
    assert len(made) == 1


def test_memory_is_kept_to_and_the_least_recently_used_song_goes(song, monkeypatch):
    paths = [song(seconds) for seconds in (2.6, 2.7, 2.8)]
    one = decode_bytes(paths[0])
    model = make_model(prefix_memory=2.5 * one / 2**30)
    made = counted(model, monkeypatch)
    for place, known in ((0, False), (1, False), (0, True), (2, False), (0, True), (1, False), (2, False)):
        before = len(made)
        model.chat(f"key of {place}?", paths[place], max_new_tokens=1)
        assert (len(made) == before) == known, place
        assert model.engine._prefixes.currsize <= 2.5 * one
    nothing = make_model(prefix_memory=0)
    assert nothing.chat("key?", paths[0], max_new_tokens=NEW) == model.chat("key?", paths[0], max_new_tokens=NEW)
    assert not len(nothing.engine._prefixes)


def decode_bytes(path: str) -> int:
    """What the prefix of a song takes."""
    model = make_model()
    model.chat("key?", path, max_new_tokens=1)
    return int(model.engine._prefixes.currsize)


def test_nothing_is_compiled_after_the_first_questions(song):
    told: list[tuple[str, bool]] = []
    model = make_model(on_compile=lambda what, seconds: told.append((what, seconds is None)))

    def ask(words: int, seconds: float, **options):
        question = make_question("key " * words, song(seconds))
        (answer,) = model.answer([question], **options)
        assert len(answer.tokens) <= options["max_new_tokens"]

    ask(3, 2.6, max_new_tokens=5)
    ask(3, 2.6, max_new_tokens=5, sampling=Sampling(0.5))
    assert [what for what, begun in told if begun] == [what for what, begun in told if not begun]
    assert told[0] == ("songs of 4 s", True)
    said, sizes = len(told), [program._cache_size() for program in PROGRAMS]
    for number in range(1, 6):
        ask(number, 2.6 + number / 5, max_new_tokens=number + 3)
        ask(number, 2.6 + number / 5, max_new_tokens=16, sampling=Sampling(number / 3), seed=number)
    assert len(told) == said
    assert [program._cache_size() for program in PROGRAMS] == sizes
    ask(60, 2.6, max_new_tokens=5)
    assert len(told) > said


@pytest.mark.slow
def test_any_mesh_gives_the_same(questions, model):
    expected = model.answer(questions, max_new_tokens=NEW)
    for axes in ({"fsdp": 2}, {"tensor": 2}):
        mesh = make_mesh(MeshConfig(**axes))
        sharded = make_model(mesh=mesh)
        with jax.set_mesh(mesh):
            found = sharded.answer(questions, max_new_tokens=NEW)
        assert texts(found) == texts(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, rtol=1e-4, atol=1e-4)


def test_an_int8_cache_holds_more_and_says_nearly_the_same(questions, model):
    expected = model.answer(questions[:3], max_new_tokens=1)
    small = make_model(quantize_cache="int8")
    assert small.engine.most_windows > 2 * model.engine.most_windows
    found = small.answer(questions[:3], max_new_tokens=1)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, atol=0.05)
        assert one.log_probabilities != other.log_probabilities


def test_an_answer_that_goes_round_is_ended(song):
    """The tied head of a random model says the last token for ever."""
    assert CONFIG.decoder.tied_embeddings
    model = make_model()
    (answer,) = model.answer([make_question("key?", song(1.0))], max_new_tokens=500)
    assert answer.finish == "repetition"
    assert len(answer.tokens) < 200
    (punished,) = model.answer(
        [make_question("key?", song(1.0))], max_new_tokens=200, sampling=Sampling(repetition_penalty=10.0)
    )
    assert punished.finish != "repetition"


def test_a_stop_string_ends_the_text_before_it(model, song):
    whole = model.chat("key?", song(2.6), max_new_tokens=40, temperature=1.0, seed=3)
    cut = len(whole) // 2
    stop = whole[cut : cut + 3]
    (answer,) = model.answer(
        [make_question("key?", song(2.6))],
        max_new_tokens=40,
        sampling=Sampling(1.0),
        seed=3,
        stop=[stop, "never there"],
    )
    assert answer.text == whole[: whole.index(stop)].rstrip()
    assert answer.finish == "stop"
    streamed = list(model.stream("key?", song(2.6), max_new_tokens=40, temperature=1.0, seed=3, stop=[stop]))
    assert "".join(streamed) == answer.text
    with pytest.raises(UserError, match=r"stop .*: give a list of strings"):
        model.chat("key?", song(2.6), stop="a")


def test_errors_survive_a_pickle(model, song):
    with pytest.raises(UserError) as caught:
        model.chat("key?", "absent.wav")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  our own
    assert (type(copy), str(copy)) == (errors.AudioError, str(caught.value))
    for kind in (errors.ConfigError, errors.ManifestError, errors.CheckpointError):
        error = pickle.loads(pickle.dumps(kind("what\x1b[1m is wrong")))  # noqa: S301
        assert (type(error), str(error)) == (kind, "what\\x1b[1m is wrong")


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_as_many_seeds_as_questions(model, seeds):
    with pytest.raises(UserError, match=f"{len(seeds)} seeds for 2 questions"):
        model.answer([make_question("key?"), make_question("tempo?")], seed=seeds)
