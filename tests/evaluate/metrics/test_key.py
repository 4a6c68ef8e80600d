import pytest
from mir_eval.key import weighted_score

from mufun_jax.evaluate.metrics.key import read_key
from mufun_jax.evaluate.metrics.registry import score_task


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("F# minor", "F# minor"),
        ("Gb major", "F# major"),
        ("F♯m", "F# minor"),
        ("B♭ major", "Bb major"),
        ("B-flat major", "Bb major"),
        ("C Sharp Minor", "C# minor"),
        ("A minor.", "A minor"),
        ("a minor", "A minor"),
        ("eb minor", "Eb minor"),
        ("A:min", "A minor"),
        ("CM", "C major"),
        ("Cb major", "B major"),
        ("The key is C major", "C major"),
        ("I hear F# minor, that is, Gb minor.", "F# minor"),
        ("It is in A minor key", "A minor"),
        ("A minor is the key", "A minor"),
        ("A minor, I think", "A minor"),
        ("in a minor key", None),
        ("A minor key is used", None),
        ("Yes.\nA major part is sung", None),
        ("C major or A minor", None),
        ("C", None),
        ("D dorian", None),
        ("H-moll", None),
        ("B-dur", None),
        ("Cmaj7", None),
        ("the A minor chord", None),
        ("A minor pentatonic", None),
        ("", None),
    ],
)
def test_one_key_is_read_or_none(text, key):
    assert read_key(text) == key


def test_weighted_score_by_hand_and_by_mir_eval():
    """Right 1; G is the fifth of C 0.5, but F is not; A minor its relative 0.3; C minor its parallel 0.2."""
    replies = ["C major", "G major", "F major", "A minor", "C minor", "unknown"]
    scores = score_task("key", replies, ["C major"] * 6)
    assert scores["weighted"] == pytest.approx((1 + 0.5 + 0 + 0.3 + 0.2 + 0) / 6)
    assert scores["weighted"] == pytest.approx(sum(weighted_score("C major", reply) for reply in replies[:5]) / 6)
    assert (scores["accuracy"], scores["unreadable"], scores["n"]) == (1 / 6, 1.0, 6.0)

    assert score_task("key", ["G major"], ["C major"])["weighted"] == 0.5
    assert score_task("key", ["F major"], ["C major"])["weighted"] == 0.0


def test_references_in_any_spelling_are_the_same_key():
    assert score_task("key", ["C# minor"], ["Db minor"])["accuracy"] == 1.0
