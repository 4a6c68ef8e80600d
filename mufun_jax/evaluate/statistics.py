"""How sure a share of right answers is, and whether two runs differ.

Questions on one song are not independent: a model that misjudges a song errs in several of them. All intervals come
twice: as if questions were independent, and clustered by song. The second is the one to quote.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.stats import binom, chi2, norm
from scipy.stats import t as student

from mufun_jax.evaluate.benchmark_question import LETTERS

_LEVEL = 0.95
_NO_ERROR = 1e-9  # a standard error below it is rounding
_EXACT_BELOW = 25  # discordant pairs; from there on McNemar's approximation is the custom
Interval = tuple[float, float]


@dataclass(frozen=True)
class Accuracy:
    """The mean of n values between 0 and 1, most often right or wrong.

    `correct` is their sum. `wilson` is the 95 % interval for independent questions. `standard_error` is clustered by
    song and None where there is but one song; `clustered` is the interval that goes with it.
    """

    n: int
    correct: float
    accuracy: float
    wilson: Interval
    songs: int
    standard_error: float | None
    clustered: Interval


def accuracy_of(values: Sequence[float], songs: Sequence[str], sets: Sequence[str] | None = None) -> Accuracy | None:
    """The accuracy of questions, `values[i]` on `songs[i]`; None where there are none.

    With `sets`, the plain mean over the sets' means, in which a question of a small set weighs more. A song that
    several sets ask about is one cluster.
    """
    if not values:
        return None
    numbers = np.asarray(values, np.float64)
    assert len(values) == len(songs) and numbers.min() >= 0 and numbers.max() <= 1
    mean, weights, residuals = _weighted(numbers, sets or ["" for _ in values])
    error, n = clustered_error(weights * residuals, songs), len(values)
    clustered = (0.0, 1.0)
    if error is not None:
        clustered = wilson(mean, _effective(mean, error, weights, songs) * _few(len(set(songs))))
    return Accuracy(n, float(numbers.sum()), mean, wilson(mean, n), len(set(songs)), error, clustered)


def wilson(share: float, n: float) -> Interval:
    """The 95 % interval of a share among n (Wilson 1927), which may be fractions: (c -/+ h) / (1 + z²/n), where
    c = p + z²/2n and h = z √(p(1-p)/n + z²/4n²). It stays within 0 and 1, and is no point where all are right."""
    z = float(norm.ppf((1 + _LEVEL) / 2))
    centre, half = share + z**2 / (2 * n), z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)
    return (0.0 if share == 0 else max(0.0, low)), (1.0 if share == 1 else min(1.0, high))


def clustered_error(weighted: Float64[np.ndarray, " questions"], songs: Sequence[str]) -> float | None:
    """The cluster-robust standard error of a mean; None for fewer than two songs.

    `weighted[i]` is a question's weight in the mean times its distance from the mean. With G songs it is
    √(G/(G-1) Σ_g (Σ_i∈g weighted_i)²): the sandwich estimator (Liang & Zeger 1986) of a regression on a constant,
    with the usual correction for few clusters.
    """
    sums = _sums(weighted, songs)
    if len(sums) < 2:
        return None
    return float(np.sqrt(len(sums) / (len(sums) - 1) * np.sum(sums**2)))


def unseen_share(songs: int) -> float:
    """How many songs there may be, as a share of all, that are unlike those that were heard and were all alike.

    The upper end of Wilson's interval for none of them, made wider for few songs: 1 for a single one. Where a standard
    error or a bootstrap sees no difference among songs, this is what it has not seen.
    """
    return wilson(0.0, songs * _few(songs))[1] if songs > 1 else 1.0


def _sums(numbers: Float64[np.ndarray, " questions"], songs: Sequence[str]) -> Float64[np.ndarray, " songs"]:
    found, place = np.unique(np.asarray(songs, dtype=object).astype(str), return_inverse=True)
    return np.bincount(place, weights=numbers, minlength=len(found))


def _weighted(
    numbers: Float64[np.ndarray, " questions"], sets: Sequence[str]
) -> tuple[float, Float64[np.ndarray, " questions"], Float64[np.ndarray, " questions"]]:
    """The plain mean over the sets' means, each question's weight in it, and its distance from its set's mean."""
    found, place = np.unique(np.asarray(sets, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(place)
    means = np.bincount(place, weights=numbers) / sizes
    return float(means.mean()), 1 / (len(found) * sizes[place]), numbers - means[place]


def _effective(mean: float, error: float, weights: Float64[np.ndarray, " questions"], songs: Sequence[str]) -> float:
    """The effective number of questions: how many on songs of their own would be as sure of the mean.

    n / deff = p(1-p)/SE² (Korn & Graubard 1998; in Wilson's interval as Franco et al. 2019 compare), at most the number
    1/Σw² of equal weights that unequal ones are worth (Kish 1965): that songs err in turn is chance. Where SE is 0
    (all right, all wrong, or each song alike) it says nothing of how alike the questions on one song are: then they
    count as one, 1/Σ(Σ_g w)², which is the number of songs where each has as many questions.
    """
    if error < _NO_ERROR:
        return float(1 / np.sum(_sums(weights, songs) ** 2))
    return min(float(1 / np.sum(weights**2)), mean * (1 - mean) / error**2)


def _few(songs: int) -> float:
    """(z/t)², with Student's t of G-1 degrees of freedom: what an effective number is worth that few songs estimate
    (Korn & Graubard 1998)."""
    return float(norm.ppf((1 + _LEVEL) / 2) / student.ppf((1 + _LEVEL) / 2, songs - 1)) ** 2


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided p value of McNemar's test (1947), from the questions that only one of two runs has right.

    Exact by the binomial distribution for fewer than 25 of them, else by χ² with Edwards's (1948) correction.
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    if discordant < _EXACT_BELOW:
        return min(1.0, 2 * float(binom.cdf(min(only_first, only_second), discordant, 0.5)))
    statistic = max(0, abs(only_first - only_second) - 1) ** 2 / discordant
    return float(chi2.sf(statistic, 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P values that stay below a level only as often as that level says, however many are looked at (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


@dataclass(frozen=True)
class Difference:
    """The mean of differences between -1 and 1, with its clustered standard error and 95 % interval by Student's t.

    The latter two are None for one song. Where all songs differ alike, the error is 0, and the interval is as wide as
    the songs that were not heard may make it (`unseen_share`): they might differ by anything from -1 to 1.
    """

    mean: float
    standard_error: float | None
    interval: Interval | None


def paired_difference(differences: Sequence[float], songs: Sequence[str]) -> Difference:
    """Of one run's value less another's on the same questions. Raises nothing; there must be one question at least."""
    numbers = np.asarray(differences, np.float64)
    mean = float(numbers.mean())
    error = clustered_error((numbers - mean) / len(numbers), songs)
    if error is None:
        return Difference(mean, None, None)
    if error < _NO_ERROR:
        unseen = unseen_share(len(set(songs)))
        return Difference(mean, error, (mean - unseen * (1 + mean), mean + unseen * (1 - mean)))
    half = float(student.ppf((1 + _LEVEL) / 2, len(set(songs)) - 1)) * error
    return Difference(mean, error, (max(-1.0, mean - half), min(1.0, mean + half)))


def letter_shares(places: Sequence[int]) -> dict[str, float]:
    """What always answering with one letter scores, for every letter up to the last that is ever right.

    `places` are those under which the right options were shown: 0 for A.
    """
    counts = np.bincount(places) if places else np.zeros(0, int)
    return {LETTERS[place]: int(count) / len(places) for place, count in enumerate(counts)}
