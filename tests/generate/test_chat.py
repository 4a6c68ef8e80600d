"""`MuFun` on a tiny random model: prompts, files, segments, and the account of what was heard."""

import jax.numpy as jnp
import numpy as np
import pytest

from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import AudioError, UserError
from mufun_jax.generate.answer import Answer
from mufun_jax.generate.chat import MuFun
from mufun_jax.generate.engine import window_bucket
from mufun_jax.generate.question import Question, make_question
from mufun_jax.text.tokenizer import load_tokenizer
from tests.generate.conftest import CONFIG

W = 1.0  # seconds of a window


def heard_of(model: MuFun, path: str, segment=None):
    prepared = model.listener.prompt(make_question("key?", path, segment))
    (heard,) = prepared.heard
    assert heard.windows == len(prepared.windows)
    assert (prepared.spliced.audio_slot >= 0).sum() == heard.windows * CONFIG.encoder.tokens_per_window
    return prepared, (heard.seconds_used, heard.seconds_dropped, heard.windows)


def test_a_prompt_without_a_placeholder_gets_one_in_front():
    assert make_question("key?", "a.wav").prompt == "<audio>\nkey?"
    assert make_question("key? <audio>", "a.wav").prompt == "key? <audio>"
    assert make_question("key?").prompt == "key?"
    assert make_question("key?", ["a.wav", "b.wav"]).prompt == "key?"
    assert [str(path) for path in make_question("q", ["a.wav", "b.wav"]).audio_files] == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    "segs, files, segments",
    [
        (None, 2, (None, None)),
        ([0, 30], 1, ((0, 30),)),
        ([0, 30.0], 1, ((0, 30.0),)),
        ((0.5, 2), 1, ((0.5, 2),)),
        ([[0, 30]], 1, ((0, 30),)),
        ([[0, 30], None], 2, ((0, 30), None)),
        ([(0, 1), (2.5, 3)], 2, ((0, 1), (2.5, 3))),
        ([None], 1, (None,)),
        ([None, None], 2, (None, None)),
    ],
)
def test_segments_in_every_form(segs, files, segments):
    question = make_question("<audio>" * files, [f"{number}.wav" for number in range(files)], segs)
    assert tuple(None if one is None else tuple(one) for one in question.segments) == segments


@pytest.mark.parametrize("segs, files", [([0, 30], 2), ([[0, 30]], 2), ([0, 30, 60], 1), ([[0, 1, 2]], 1), ([5], 1)])
def test_segments_that_fit_no_file_are_an_error(segs, files):
    with pytest.raises(UserError, match=f"give .* for each of {files} files"):
        make_question("<audio>" * files, [f"{number}.wav" for number in range(files)], segs)


@pytest.mark.parametrize("prompt", ["", " \n\t"])
def test_an_empty_question_is_an_error(prompt):
    with pytest.raises(UserError, match="question is empty"):
        make_question(prompt, "a.wav")


@pytest.mark.parametrize("prompt, files", [("<audio> and <audio>", 1), ("key?", 2), ("<audio>", 0)])
def test_files_and_placeholders_must_be_as_many(model, song, prompt, files):
    with pytest.raises(UserError, match=rf"{prompt.count('<audio>')} <audio> but {files} audio files"):
        model.chat(prompt, [song(0.5)] * files)


@pytest.mark.parametrize(
    "seconds, used, dropped, windows",
    [
        (0.1, 0.1, 0.0, 1),
        (W, 1.0, 0.0, 1),
        (W + 0.5, 1.0, 0.5, 1),
        (W + 0.51, 1.51, 0.0, 2),
        (4 * W, 4.0, 0.0, 4),
        (4 * W + 0.4, 4.0, 0.4, 4),
        (4 * W + 0.6, 4.0, 0.6, 4),
        (7.25, 4.0, 3.25, 4),
    ],
)
def test_what_is_heard_of_a_whole_file(model, song, seconds, used, dropped, windows):
    path = song(seconds)
    prepared, heard = heard_of(model, path)
    assert heard == (used, dropped, windows)
    assert (prepared.heard[0].file, prepared.heard[0].file_seconds, prepared.heard[0].start) == (path, seconds, 0.0)
    expected = np.zeros(windows * SAMPLE_RATE, np.float32)
    count = round(used * SAMPLE_RATE)
    expected[:count] = np.arange(count) % 30_000 / 32768
    np.testing.assert_array_equal(prepared.windows.reshape(-1), expected)


@pytest.mark.parametrize(
    "segment, used, dropped, windows",
    [
        ([0, 1], 1.0, 0.0, 1),
        ([2, 4.5], 2.0, 0.5, 2),
        ([2, 4.75], 2.75, 0.0, 3),
        ([1.5, 7.25], 4.0, 1.75, 4),
        ([6, 100], 1.25 - 0.25, 0.25, 1),
        ([7.0, 7.25], 0.25, 0.0, 1),
    ],
)
def test_what_is_heard_of_a_segment(model, song, segment, used, dropped, windows):
    prepared, heard = heard_of(model, song(7.25), segment)
    assert heard == (used, dropped, windows)
    assert prepared.heard[0].start == segment[0]
    assert prepared.windows[0, 0] == np.float32(round(segment[0] * SAMPLE_RATE) % 30_000 / 32768)
    assert bool(prepared.heard[0].warnings) == (segment[1] > 7.25), "a segment beyond the end is said to be"


def test_several_files_share_the_windows_and_keep_their_order(model, song):
    paths = [song(3.0, "a"), song(0.3, "b")]
    prepared = model.listener.prompt(make_question("<audio> first, <audio> second", paths, [[1, 3], None]))
    assert [heard.file for heard in prepared.heard] == paths
    assert [(heard.seconds_used, heard.windows) for heard in prepared.heard] == [(2.0, 2), (0.3, 1)]
    slots = prepared.spliced.audio_slot
    assert slots[slots >= 0].tolist() == list(range(30))
    assert prepared.windows[0, 0] == np.float32(SAMPLE_RATE / 32768)
    prepared = model.listener.prompt(make_question("<audio> first, <audio> second", [song(3.0, "a")] * 2))
    assert [(heard.seconds_used, heard.seconds_dropped) for heard in prepared.heard] == [(2.0, 1.0)] * 2


def test_more_files_than_windows_is_an_error(model, song):
    with pytest.raises(UserError, match=r"5 audio files .* 4 windows"):
        model.listener.prompt(make_question("<audio>" * 5, [song(0.5)] * 5))


def test_a_file_that_is_not_there_is_named(model):
    with pytest.raises(AudioError, match=r"nowhere\.wav"):
        model.chat("key?", "nowhere.wav")


def test_an_answer_is_text_and_the_same_in_a_batch_as_alone(model, song):
    questions = [
        make_question("key?", song(2.6)),
        make_question("What is a key?"),
        make_question("Which of these? <audio> or <audio>", [song(0.3, "b"), song(1.0)]),
    ]
    together = model.answer(questions, max_new_tokens=5)
    assert model.answer([questions[2]], max_new_tokens=5) == together[2:]
    assert [len(answer.heard) for answer in together] == [1, 0, 2]
    assert len({answer.text for answer in together}) > 1
    assert model.chat("key?", song(2.6), max_new_tokens=5) == together[0].text
    assert together[0].to_json()["heard"][0]["windows"] == 3


def test_an_answer_says_whether_it_was_finished(model, song):
    """The likeliest first token stands in for the end of the turn: the answer is empty and finished."""
    path = song(1.0)
    logits = model.logits("key?", path)
    assert (logits.shape, logits.dtype) == ((512,), np.float32)
    tokenizer = load_tokenizer("nano")
    tokenizer.end_of_turn = int(logits.argmax())
    stopped = MuFun(model.model, model.params, tokenizer, model.mesh)
    question = Question("<audio>\nkey?", make_question("key?", path).audio_files, (None,))
    (answer,) = stopped.answer([question], max_new_tokens=5)
    assert (answer.text, answer.finished) == ("", True)
    (answer,) = model.answer([question], max_new_tokens=5)
    assert isinstance(answer, Answer)
    assert not answer.finished


def test_few_shapes_are_compiled():
    assert [window_bucket(windows, 13) for windows in (0, 1, 2, 3, 4, 5, 9, 13)] == [0, 1, 2, 4, 4, 8, 13, 13]
    assert jnp.float32(W) == CONFIG.encoder.window_seconds
