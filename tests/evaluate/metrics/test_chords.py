import mir_eval
import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics.chords import read_chord
from mufun_jax.evaluate.metrics.registry import score_task


@pytest.mark.parametrize(
    ("label", "chord"),
    [
        ("C", "C:maj"),
        ("Am", "A:min"),
        ("A minor", "A:min"),
        ("F#m7b5", "F#:hdim7"),
        ("B♭maj7", "Bb:maj7"),
        ("CM7", "C:maj7"),
        ("Cm7", "C:min7"),
        ("CmM7", "C:minmaj7"),
        ("G/B", "G:maj"),
        ("A:min7/b3", "A:min7"),
        ("C:sus4(b7)", "C:sus4(b7)"),
        ("Gdim", "G:dim"),
        ("D6", "D:maj6"),
        ("N.C.", "N"),
        ("X", "X"),
        ("H7", None),
        ("c", None),
        ("Chorus", None),
        ("", None),
    ],
)
def test_chords_in_hartes_syntax(label, chord):
    assert read_chord(label) == chord


def test_seconds_that_are_right_by_seconds_that_are_compared():
    """First song: C 2 s right; Am7 for A minor 2 s, right but as a seventh; G for Gm 1 s, its root alone. Second: 5 s
    of D, unreadable. Third: a label that is no chord for 1 s of 5."""
    references = ["0-2 C; 2-4 Am; 4-5 Gm", "0-5 D", "0-5 C"]
    replies = ["0-2 C; 2-4 Am7; 4-5 G", "D", "0-4 C; 4-5 blah"]
    scores = score_task("chords", replies, references)
    assert scores["majmin"] == pytest.approx((2 + 2 + 4) / 15)
    assert scores["root"] == pytest.approx((5 + 4) / 15)
    assert scores["sevenths"] == pytest.approx((2 + 4) / 15)
    assert (scores["unreadable"], scores["unreadable_chords"]) == (1.0, 1.0)


def test_what_is_no_major_or_minor_chord_is_not_compared():
    scores = score_task("chords", ["0-2 C; 2-10 E"], ["0-2 C; 2-10 C:sus4"])
    assert (scores["majmin"], scores["root"]) == (1.0, 0.2)
    with pytest.raises(UserError, match="no reference holds a major or minor chord"):
        score_task("chords", ["0-2 C"], ["0-2 C:sus4"])


def test_gaps_hold_no_chord_and_what_lies_outside_is_cut_off():
    reference = "1-3 C; 5-6 G"
    assert score_task("chords", ["0-3 C; 3-5 N; 5-9 G"], [reference])["majmin"] == 1.0
    assert score_task("chords", ["1-3 C"], ["1-3 C; 3-5 N"])["majmin"] == 1.0
    assert score_task("chords", ["1-6 C"], [reference])["majmin"] == pytest.approx(2 / 5)
    assert score_task("chords", ["0:01 C, 0:05 G"], [reference])["majmin"] == pytest.approx(3 / 5)
    assert score_task("chords", ["0-3 C; 2-6 G"], [reference])["unreadable"] == 1.0, "they overlap"


def test_agrees_with_mir_eval():
    rng = np.random.default_rng(0)
    names = ["C:maj", "A:min", "G:7", "F:maj7", "D:min7", "E:dim", "N", "B:sus4"]
    lists = []
    for _ in range(2):
        times = np.sort(rng.uniform(0, 30, 14)).round(2)
        times[[0, -1]] = 0, 30
        lists.append((np.stack([times[:-1], times[1:]], axis=1), [str(name) for name in rng.choice(names, 13)]))
    wanted = mir_eval.chord.evaluate(*lists[0], *lists[1])
    texts = ["\n".join(f"{a} {b} {label}" for (a, b), label in zip(*one, strict=True)) for one in lists]
    scores = score_task("chords", [texts[1]], [texts[0]])
    for name in ("majmin", "root", "sevenths"):
        assert 0 < scores[name] < 1
        assert scores[name] == pytest.approx(wanted[name])


@pytest.mark.parametrize(
    ("reference", "wrong"),
    [
        ("C, Am, F", "is no list of chords with their times"),
        ("0-2 C; 1-3 G", "is no list of chords"),
        ("0 C, 2 G", "does not say when the last chord ends"),
        ("0-2 C; 2-3 Zz", "'Zz' is no chord"),
    ],
)
def test_references_that_cannot_be_scored_against(reference, wrong):
    with pytest.raises(UserError, match=rf"^reference 1, metric chords: the answer .* {wrong}"):
        score_task("chords", ["0-2 C"], [reference])
