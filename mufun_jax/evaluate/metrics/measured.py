"""What a metric says of a task's replies, and how sure it is of it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mufun_jax.evaluate.statistics import unseen_share

_DRAWS = 1000
_SEED = 0  # of the draws: the same replies have the same interval


@dataclass(frozen=True)
class Measured:
    """The figures of n replies.

    `figures` holds every score by name, and counts, of all replies together. `sums` is float64 [n, k]: what each reply
    adds to the k sums that `headline` makes the metric's main figure of, NaN where they do not define one. `bounds` are
    the least and most of that figure, of an error rate what silence has.
    """

    figures: dict[str, float]
    sums: np.ndarray
    headline: Callable[[np.ndarray], float]
    bounds: tuple[float, float] = (0.0, 1.0)


def fraction(sums: np.ndarray, top: int = 0, bottom: int = 1) -> float:
    """One sum divided by another; NaN where the other is 0."""
    return float(sums[top] / sums[bottom]) if sums[bottom] else float("nan")


def mean_of(values: Sequence[float], figures: dict[str, float]) -> Measured:
    """Measured by a mean over the replies."""
    sums = np.stack([np.asarray(values, np.float64), np.ones(len(values))], axis=1)
    return Measured(figures, sums, partial(fraction, top=0, bottom=1))


def bootstrap_interval(measured: Measured, songs: Sequence[Hashable]) -> tuple[float, float]:
    """The 95 % interval of the main figure, from 1000 draws of songs with replacement (the percentile bootstrap,
    Efron 1979).

    Songs are drawn, not replies: those about one song are not independent. `songs` has one entry a reply. Draws in
    which the figure is not defined are left out of the percentiles.

    Draws know no song but those there are: of songs that are all right they make a point. So the interval holds at
    least what the figure would be if as many songs as may be (`unseen_share`) had the least or the most there is. For
    songs that are all right or all wrong that is Wilson's interval of the songs; one song says nothing.
    """
    places = {song: place for place, song in enumerate(dict.fromkeys(songs))}
    assert len(songs) == len(measured.sums)
    of_song = np.zeros((len(places), measured.sums.shape[1]))
    np.add.at(of_song, [places[song] for song in songs], measured.sums)
    rng = np.random.default_rng(_SEED)
    counts = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=_DRAWS)
    values = np.array([measured.headline(row) for row in counts @ of_song])
    low, high = np.nanpercentile(values, [2.5, 97.5])
    figure, unseen = measured.headline(measured.sums.sum(axis=0)), unseen_share(len(places))
    least, most = measured.bounds
    return min(float(low), figure - unseen * (figure - least)), max(float(high), figure + unseen * (most - figure))
