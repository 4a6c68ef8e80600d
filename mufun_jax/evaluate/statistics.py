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
    mean, weighted = _weighted_residuals(numbers, sets or ["" for _ in values])
    error, clusters = clustered_error(weighted, songs), len(set(songs))
    n = len(values)
    return Accuracy(
        n, float(numbers.sum()), mean, wilson(mean, n), clusters, error, _clustered(mean, n, clusters, error)
    )


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
    found, place = np.unique(np.asarray(songs, dtype=object).astype(str), return_inverse=True)
    if len(found) < 2:
        return None
    sums = np.bincount(place, weights=weighted, minlength=len(found))
    return float(np.sqrt(len(found) / (len(found) - 1) * np.sum(sums**2)))


def _weighted_residuals(
    numbers: Float64[np.ndarray, " questions"], sets: Sequence[str]
) -> tuple[float, Float64[np.ndarray, " questions"]]:
    """The plain mean over the sets' means, and each question's weight in it times its distance from its set's mean."""
    found, place = np.unique(np.asarray(sets, dtype=object).astype(str), return_inverse=True)
    sizes = np.bincount(place)
    means = np.bincount(place, weights=numbers) / sizes
    return float(means.mean()), (numbers - means[place]) / (len(found) * sizes[place])


def _clustered(mean: float, n: int, clusters: int, error: float | None) -> Interval:
    """Wilson's interval at the effective number of questions: what of n is left when neighbours say the same.

    n* = p(1-p)/SE², at most n, made smaller by (z/t)² with Student's t of G-1 degrees of freedom, for few songs
    (Korn & Graubard 1998; with Wilson's interval Franco et al. 2019). Where all are right or all wrong, SE is 0 and
    says nothing: then n* begins at the number of songs. One song says nothing at all: 0 to 1.
    """
    if error is None:
        return 0.0, 1.0
    if mean in (0.0, 1.0):
        effective = float(clusters)
    else:
        effective = min(float(n), mean * (1 - mean) / error**2) if error > 0 else float(n)
    ratio = float(norm.ppf((1 + _LEVEL) / 2) / student.ppf((1 + _LEVEL) / 2, clusters - 1))
    return wilson(mean, effective * ratio**2)


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

    The latter two are None for one song.
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
    half = float(student.ppf((1 + _LEVEL) / 2, len(set(songs)) - 1)) * error
    return Difference(mean, error, (max(-1.0, mean - half), min(1.0, mean + half)))


def letter_shares(places: Sequence[int]) -> dict[str, float]:
    """What always answering with one letter scores, for every letter up to the last that is ever right.

    `places` are those under which the right options were shown: 0 for A.
    """
    counts = np.bincount(places) if places else np.zeros(0, int)
    return {LETTERS[place]: int(count) / len(places) for place, count in enumerate(counts)}
