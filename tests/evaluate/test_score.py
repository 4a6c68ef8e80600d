import pytest

from mufun_jax.evaluate.report import is_heard
from mufun_jax.evaluate.run import TaskScore
from mufun_jax.evaluate.score import is_correct, majority_accuracy, wilson_interval


@pytest.mark.parametrize(
    ("reply", "answer", "correct"),
    [
        ("D major", "D major", True),
        (" d MAJOR. ", "D major", True),
        ("F", "F#", False),
        ("F#", "F", False),
        ("slip jig", "jig", False),
        ("jig", "slip jig", False),
        ("", "jig", False),
        ("It is a jig", "jig", False),
    ],
)
def test_only_the_answer_itself_is_right(reply, answer, correct):
    assert is_correct(reply, answer) is correct


# By hand from (p + z^2/2n -/+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z = 1.959964.
@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (81, 263, 0.25526, 0.36619)]
)
def test_wilson_interval(right, n, low, high):
    assert wilson_interval(right, n) == pytest.approx((low, high), abs=1e-4)


def test_majority_is_the_best_constant():
    assert majority_accuracy(["a", "b", "b", "c"]) == 0.5


def test_heard_only_above_all_three_baselines():
    score = {"n": 100, "accuracy": 0.5, "interval": (0.4, 0.6), "majority": 0.1, "no_audio": 0.1, "wrong_audio": 0.1}
    assert is_heard(TaskScore(**score))
    for baseline in ("majority", "no_audio", "wrong_audio"):
        assert not is_heard(TaskScore(**{**score, baseline: 0.4}))
