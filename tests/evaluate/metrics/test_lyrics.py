import jiwer
import pytest
from alt_eval import compute_metrics

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics.registry import score_task

REFERENCES = ["Hello, darkness, my old friend\nI've come to talk", "La la la", "Don't stop!"]
REPLIES = ["hello darkness my friend I have come to talk", "la la la la", "don't... stop"]


def test_errors_of_all_replies_by_words_of_all_references():
    """By hand: `old` is missing and `have` stands for `'ve` (2 errors of 10 words), one `la` is too many (1 of 3), none
    of `don 't stop`: contractions are two words each."""
    scores = score_task("lyrics", REPLIES, REFERENCES)
    assert scores["wer"] == pytest.approx(3 / 16)
    assert scores["wer"] != pytest.approx((2 / 10 + 1 / 3 + 0) / 3), "no mean over the songs"
    assert scores["wer"] == pytest.approx(compute_metrics(REFERENCES, REPLIES, include_other=False)["WER"])
    assert scores["unreadable"] == 0.0


def test_characters_without_spaces():
    """`kitten` to `sitting` is 3 edits of 6; `in to` for `into` is none, though both its words are wrong."""
    assert (
        score_task("lyrics", ["sitting"], ["kitten"])["cer"] == pytest.approx(3 / 6) == jiwer.cer("kitten", "sitting")
    )
    scores = score_task("lyrics", ["in to"], ["into"])
    assert (scores["cer"], scores["wer"]) == (0.0, 2.0)


def test_a_reference_without_words_adds_errors_and_no_words():
    scores = score_task("lyrics", ["oh yeah", "one two"], ["(...)", "one two three four"])
    assert scores["wer"] == pytest.approx((2 + 2) / 4)
    scores = score_task("lyrics", ["", "one two"], ["", "one two"])
    assert (scores["wer"], scores["unreadable"]) == (0.0, 1.0)
    with pytest.raises(UserError, match="no reference of the lyrics holds a word"):
        score_task("lyrics", ["one"], ["..."])


def test_an_empty_reply_lacks_every_word():
    scores = score_task("lyrics", ["♪", "one two"], ["one two", "one two"])
    assert (scores["wer"], scores["cer"], scores["unreadable"]) == (0.5, 0.5, 1.0)


def test_languages():
    """`don't` is two words in English and one in German; Japanese has a word a character."""
    assert score_task("lyrics:en", ["don 't"], ["don't"])["wer"] == 0.0
    assert score_task("lyrics:de", ["don 't"], ["don't"])["wer"] == 2.0
    assert score_task("lyrics:ja", ["君が好き"], ["君は好き"])["wer"] == pytest.approx(1 / 4)
    with pytest.raises(UserError, match=r"lyrics:xx: is no language .* write for instance lyrics:de"):
        score_task("lyrics:xx", ["a"], ["a"])
