"""What a metric says of a task's replies, and how sure it is of it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

_DRAWS = 1000
_SEED = 0  # of the draws: the same replies have the same interval


@dataclass(frozen=True)
class Measured:
    """The figures of n replies.

    `figures` holds every score by name, and counts, of all replies together. `sums` is float64 [n, k]: what each reply
    adds to the k sums that `headline` makes the metric's main figure of, NaN where they do not define one.
    """

    figures: dict[str, float]
    sums: np.ndarray
    headline: Callable[[np.ndarray], float]


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
    which the figure is not defined are left out of the percentiles. Of a single song it says nothing: both ends are
    then the figure itself.
    """
    places = {song: place for place, song in enumerate(dict.fromkeys(songs))}
    assert len(songs) == len(measured.sums)
    of_song = np.zeros((len(places), measured.sums.shape[1]))
    np.add.at(of_song, [places[song] for song in songs], measured.sums)
    rng = np.random.default_rng(_SEED)
    counts = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), size=_DRAWS)
    values = np.array([measured.headline(row) for row in counts @ of_song])
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
