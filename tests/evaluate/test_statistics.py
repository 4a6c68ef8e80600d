"""Intervals and tests against hand-computed values, SciPy and statsmodels."""

import numpy as np
import pytest
import statsmodels.api
from scipy.stats import binomtest
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from mufun_jax.evaluate.statistics import (
    accuracy_of,
    holm,
    letter_shares,
    mcnemar,
    paired_difference,
    unseen_share,
    wilson,
)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (5, 10), (10, 10), (1, 1), (0, 1), (81, 263), (16_000, 16_463)])
def test_wilson_is_scipys(correct, n):
    expected = binomtest(correct, n).proportion_ci(0.95, "wilson")
    assert wilson(correct / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def regression(values, songs):
    """The mean and its clustered standard error as a regression on a constant gives them."""
    groups = np.unique(songs, return_inverse=True)[1]
    fit = statsmodels.api.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return fit.params[0], fit.bse[0]


def test_the_clustered_error_is_that_of_statsmodels():
    chance = np.random.default_rng(0)
    for questions, songs in ((40, 8), (300, 50), (9, 2)):
        on = [str(i) for i in chance.integers(0, songs, questions)]
        hard = dict(zip(sorted(set(on)), chance.random(songs), strict=False))
        values = [float(chance.random() < hard[song]) for song in on]
        mean, error = regression(values, on)
        found = accuracy_of(values, on)
        assert found and found.standard_error is not None
        assert (found.accuracy, found.standard_error) == pytest.approx((mean, error), rel=1e-9)


def test_the_clustered_error_by_hand():
    """Songs a (1, 1, 0) and b (0): mean 1/2, sums of residuals 1/2 and -1/2, so √(2/1 · (1/4 + 1/4)) / 4 = 1/4."""
    found = accuracy_of([1.0, 1.0, 0.0, 0.0], ["a", "a", "a", "b"])
    assert found and found.standard_error == pytest.approx(0.25)
    assert (found.n, found.correct, found.accuracy, found.songs) == (4, 2.0, 0.5, 2)


def test_the_plain_mean_over_sets_weighs_small_sets_more():
    values, songs = [1.0] * 2 + [0.0] * 8 + [0.0], [f"song {i}" for i in range(11)]
    sets = ["big"] * 10 + ["small"]
    found = accuracy_of(values, songs, sets)
    assert found and found.accuracy == pytest.approx((0.2 + 0.0) / 2)
    # By hand: weights are 1/20 for each of the big set, so the squares of residuals sum to (2·0.8² + 8·0.2²) / 400.
    assert found.standard_error == pytest.approx((11 / 10 * (2 * 0.64 + 8 * 0.04) / 400) ** 0.5)
    together = accuracy_of(values, songs)
    assert together and together.accuracy == pytest.approx(2 / 11)


def test_sets_on_the_same_songs_share_clusters():
    values = [1.0, 0.0, 1.0, 0.0]
    apart = accuracy_of(values, ["a", "b", "c", "d"], ["x", "x", "y", "y"])
    shared = accuracy_of(values, ["a", "b", "a", "b"], ["x", "x", "y", "y"])
    assert apart and shared and apart.standard_error and shared.standard_error
    assert shared.standard_error == pytest.approx(apart.standard_error * (2 * 2 / (4 / 3)) ** 0.5)


def test_the_clustered_interval_is_wilsons_at_the_effective_number():
    values = [1.0] * 10 + [0.0] * 10
    same = accuracy_of(values, [str(i // 5) for i in range(20)])  # four songs of which each is all right or all wrong
    assert same and same.standard_error
    effective = 0.25 / same.standard_error**2 * (1.959964 / float(student.ppf(0.975, 3))) ** 2
    assert same.clustered == pytest.approx(wilson(0.5, effective), abs=1e-6)
    assert same.clustered[0] < same.wilson[0] and same.clustered[1] > same.wilson[1]


def test_the_clustered_interval_is_never_a_point():
    for value in (0.0, 1.0):
        found = accuracy_of([value] * 12, [str(i % 4) for i in range(12)])
        assert found and found.standard_error == pytest.approx(0)
        assert found.clustered[1] - found.clustered[0] > found.wilson[1] - found.wilson[0] > 0.1
        four_songs = wilson(value, 4 * (1.959964 / float(student.ppf(0.975, 3))) ** 2)
        assert found.clustered == pytest.approx(four_songs, abs=1e-6), "begins at the number of songs"
    found = accuracy_of([1.0, 0.0], ["a", "b"])
    assert found and found.clustered[0] < 0.05 and found.clustered[1] > 0.95
    one = accuracy_of([1.0, 1.0], ["a", "a"])
    assert one and (one.standard_error, one.clustered) == (None, (0.0, 1.0))
    assert accuracy_of([], []) is None


def test_negative_correlation_within_songs_is_no_gain():
    """Songs of one right and one wrong each: the error is 0, and the interval is that of so many songs."""
    found = accuracy_of([1.0, 0.0] * 20, [str(i // 2) for i in range(40)])
    assert found and found.standard_error == pytest.approx(0)
    assert found.clustered == pytest.approx(wilson(0.5, 20 * (1.959964 / float(student.ppf(0.975, 19))) ** 2), abs=1e-6)
    nearly = accuracy_of([1.0, 0.0] * 20 + [1.0], [*(str(i // 2) for i in range(40)), "0"])
    few = (1.959964 / float(student.ppf(0.975, 19))) ** 2
    assert nearly and nearly.clustered == pytest.approx(wilson(21 / 41, 41 * few), abs=1e-6), (
        "never more than there are"
    )


@pytest.mark.parametrize("songs", [2, 4, 30])
def test_all_right_is_statsmodels_interval_of_the_songs(songs):
    """Ten questions a song, all right: Wilson's interval of so many songs, made wider as Student's t is than normal."""
    found = accuracy_of([1.0] * 10 * songs, [str(i % songs) for i in range(10 * songs)])
    effective = songs * (1.959964 / float(student.ppf(0.975, songs - 1))) ** 2
    expected = proportion_confint(effective, effective, method="wilson")
    assert found and found.clustered == pytest.approx(expected, abs=1e-6)
    assert unseen_share(songs) == pytest.approx(1 - expected[0], abs=1e-6)
    assert unseen_share(1) == 1.0


def test_sets_that_are_all_right_or_all_wrong_count_by_their_weights():
    """A hundred right in one set, one wrong in another, each half of the mean: 4/1.01 questions (Kish), not 101."""
    found = accuracy_of([1.0] * 100 + [0.0], [str(i) for i in range(101)], ["big"] * 100 + ["small"])
    assert found and (found.accuracy, found.standard_error) == (0.5, pytest.approx(0))
    few = (1.959964 / float(student.ppf(0.975, 100))) ** 2
    assert found.clustered == pytest.approx(wilson(0.5, 4 / 1.01 * few), abs=1e-6)


def test_songs_with_unequal_numbers_of_questions_are_worth_fewer():
    """Nine questions on one song and one on another, all right: 1/(0.9² + 0.1²) songs."""
    found = accuracy_of([1.0] * 10, ["a"] * 9 + ["b"])
    few = (1.959964 / float(student.ppf(0.975, 1))) ** 2
    assert found and found.clustered == pytest.approx(wilson(1.0, few / 0.82), abs=1e-6)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (9, 2), (12, 12), (24, 0), (15, 10), (40, 22), (13, 12)])
def test_mcnemar_is_that_of_statsmodels(first, second):
    table = [[50, first], [second, 50]]
    reference = vars(reference_mcnemar(table, exact=first + second < 25, correction=True))
    expected = reference["pvalue"] if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_mcnemar_by_hand():
    assert mcnemar(5, 1) == pytest.approx(2 * (1 + 6) / 64)


def test_holm_is_that_of_statsmodels():
    values = [0.01, 0.04, 0.03, 0.005, 1.0, 0.04]
    assert holm(values) == pytest.approx(np.asarray(multipletests(values, method="holm")[1]))
    assert holm([]) == []


def test_the_paired_difference_is_clustered():
    differences, songs = [1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0] * 2, list("aabbccdddeeffggh")
    found = paired_difference(differences, songs)
    mean, error = regression(differences, songs)
    assert (found.mean, found.standard_error) == pytest.approx((mean, error))
    assert found.interval and error
    assert found.interval[1] - found.mean == pytest.approx(student.ppf(0.975, 7) * error)
    assert paired_difference([1.0], ["a"]).interval is None
    assert paired_difference([1.0, 0.0], ["a", "b"]).interval == (-1.0, 1.0)


@pytest.mark.parametrize("difference", [0.0, 1.0, -1.0, 0.25])
def test_the_interval_of_songs_that_differ_alike_is_no_point(difference):
    """Of 50 songs none is unlike, so that 7.4 % of all may be (Wilson, with Student's t), by anything from -1 to 1."""
    found = paired_difference([difference] * 100, [str(i // 2) for i in range(100)])
    unseen = wilson(0.0, 50 * (1.959964 / float(student.ppf(0.975, 49))) ** 2)[1]
    assert unseen == pytest.approx(0.0747, abs=2e-4)
    assert found.interval == pytest.approx(
        ((1 - unseen) * difference - unseen, (1 - unseen) * difference + unseen), abs=1e-6
    )


def test_letter_shares():
    assert letter_shares([0, 0, 1, 3]) == {"A": 0.5, "B": 0.25, "C": 0.0, "D": 0.25}
    assert letter_shares([]) == {}
