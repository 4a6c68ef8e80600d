"""Songs beyond what the model hears: the first part, part after part, or all at once. It is always said which."""

import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.generate.constraint import Constraint
from mufun_jax.generate.question import make_question
from tests.generate.conftest import make_model


def heard_of(answer):
    return [(heard.start, heard.seconds_used, heard.seconds_dropped, heard.windows) for heard in answer.heard]


def test_only_the_first_part_is_heard_by_itself(model, song):
    (answer,) = model.answer([make_question("key?", song(9.7))], max_new_tokens=3)
    assert heard_of(answer) == [(0.0, 4.0, 5.7, 4)]


def test_part_after_part_has_an_answer_each(model, song):
    path = song(9.7)
    (answer,) = model.answer([make_question("key?", path, long="window")], max_new_tokens=3)
    assert heard_of(answer) == [(0.0, 4.0, 0.0, 4), (4.0, 4.0, 0.0, 4), (8.0, 1.7, 0.0, 2)]
    of_each = [model.chat("key?", path, segs, max_new_tokens=3) for segs in ([0, 4], [4, 8], [8, 9.7])]
    labels = ["[0:00-0:04] ", "[0:04-0:08] ", "[0:08-0:09.7] "]
    assert answer.text == "\n".join(label + text for label, text in zip(labels, of_each, strict=True))
    assert len(answer.tokens) == len(answer.log_probabilities) == 9
    assert answer.finish == "length"
    assert not any(heard.warnings for heard in answer.heard)
    assert "".join(model.stream("key?", path, long="window", max_new_tokens=3)) == answer.text


@pytest.mark.parametrize(
    "seconds, segment, edges",
    [
        (8.4, None, [(0, 4), (4, 8.4)]),  # the last 0.4 s are too short for a pass of their own
        (8.6, None, [(0, 4), (4, 8), (8, 8.6)]),
        (9.7, [1, 6], [(1, 5), (5, 6)]),
        (9.7, [1, 100], [(1, 5), (5, 9), (9, 9.7)]),
    ],
)
def test_where_the_parts_are(model, song, seconds, segment, edges):
    passes = model.listener.passes(make_question("key?", song(seconds), segment, long="window"))
    np.testing.assert_allclose([one.segments[0] for one in passes], edges)
    assert {one.long for one in passes} == {"first"}


def test_a_song_that_is_short_enough_has_one_answer(model, song):
    path = song(3.7)
    for long in ("window", "all"):
        (answer,) = model.answer([make_question("key?", path, long=long)], max_new_tokens=3)
        assert answer.text == model.chat("key?", path, max_new_tokens=3)
        assert heard_of(answer) == [(0.0, 3.7, 0.0, 4)]
        assert not answer.heard[0].warnings


def test_all_of_it_at_once_as_far_as_memory_goes(model, song):
    path = song(9.7)
    (answer,) = model.answer([make_question("key?", path, long="all")], max_new_tokens=3)
    assert heard_of(answer) == [(0.0, 9.7, 0.0, 10)]
    (warning,) = answer.heard[0].warnings
    assert warning == f"{path}: 10 s are heard at once, where the model has learned to hear 4 s"
    window = model.engine._bytes_of_prefix(model.config.encoder.tokens_per_window)
    small = make_model(prefix_memory=6.5 * window / 2**30)
    (answer,) = small.answer([make_question("key?", path, long="all")], max_new_tokens=3)
    assert heard_of(answer) == [(0.0, 6.0, 3.7, 6)]


def test_what_cannot_be_had(model, song):
    with pytest.raises(UserError, match="2 songs in several passes"):
        model.chat("<audio> <audio> key?", [song(1.0), song(3.7)], long="window")
    with pytest.raises(UserError, match="several passes give several answers"):
        model.chat("key?", song(9.7), long="window", constraint=Constraint.choices(["a"]))
    with pytest.raises(UserError, match="scored in one pass"):
        model.score_options(make_question("key?", song(1.0), long="window"), ["a"])
