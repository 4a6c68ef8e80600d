"""Long curves with few points: thinned so that spikes stay, and smoothed."""

import numpy as np
from jaxtyping import Float64, Int64
from scipy.ndimage import median_filter
from scipy.signal import lfilter

Places = Int64[np.ndarray, " kept"]


def thin(values: Float64[np.ndarray, " steps"], points: int) -> Places:
    """Places of at most `points` values that show the curve: of each of equal parts, the lowest and the highest.

    Values that are no numbers are left out. The first and the last number are kept too.
    """
    places = np.flatnonzero(np.isfinite(values))
    if len(places) <= points:
        return places
    parts = max(1, points // 2 - 1)
    part = np.arange(len(places)) * parts // len(places)
    order = np.lexsort((values[places], part))
    edges = np.searchsorted(part, np.arange(parts))
    lowest, highest = order[edges], order[np.append(edges[1:], len(places)) - 1]
    return places[np.unique(np.concatenate([lowest, highest, [0, len(places) - 1]]))]


def smooth(values: Float64[np.ndarray, " steps"], span: float) -> Float64[np.ndarray, " steps"]:
    """The exponential moving average over about `span` values, without the bias of its start.

    The weight of the newest value is 2 / (span + 1), as in pandas. What is no number stays so, and weighs nothing.
    """
    finite = np.isfinite(values)
    smoothed = np.full(len(values), np.nan)
    newest = 2.0 / (max(span, 1.0) + 1.0)
    if newest >= 1.0 or not finite.any():
        return np.where(finite, values, np.nan)
    average = lfilter([newest], [1.0, newest - 1.0], values[finite])
    smoothed[finite] = average / (1.0 - (1.0 - newest) ** np.arange(1, finite.sum() + 1))
    return smoothed


def usual(values: Float64[np.ndarray, " steps"], span: int) -> Float64[np.ndarray, " steps"]:
    """The median of about `span` values around each: what one slow step does not move. What is no number stays so."""
    finite, middle = np.isfinite(values), np.full(len(values), np.nan)
    middle[finite] = median_filter(values[finite], size=span // 2 * 2 + 1, mode="mirror") if finite.any() else []
    return middle


def usual_span(steps: int) -> float:
    """How far a stage of so many steps is smoothed: a thirtieth of it, 9 to 500 steps, but never over a sixth of it."""
    return float(min(500, max(9, steps // 30), max(1, steps // 6)))
