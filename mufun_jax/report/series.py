"""A field of the steps as curves for a figure: thinned, smoothed stage by stage, with a gap between stages."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float64

from mufun_jax.report.curves import smooth, thin, usual, usual_span
from mufun_jax.report.steps import Steps

Smoothing = Literal["none", "average", "median"]
_LARGEST_INT32 = 2**31 - 1
_MEDIAN_SPAN = 31  # steps, but never over a sixth of a stage


@dataclass(frozen=True)
class Curve:
    """Points of a curve; y is NaN where it is interrupted."""

    x: np.ndarray  # global steps
    y: np.ndarray

    @property
    def last(self) -> float:
        """The newest number; NaN where there is none."""
        numbers = self.y[np.isfinite(self.y)]
        return float(numbers[-1]) if len(numbers) else float("nan")


@dataclass(frozen=True)
class Part:
    """Neighbouring steps of one stage."""

    stage: int  # which of Steps.stages
    start: int
    stop: int


def parts(steps: Steps) -> Iterator[Part]:
    """The steps, cut where the stage changes."""
    cuts = [0, *(np.flatnonzero(np.diff(steps.stage)) + 1).tolist(), len(steps)]
    for start, stop in pairwise(cuts):
        if stop > start:
            yield Part(int(steps.stage[start]), start, stop)


def part_curve(
    steps: Steps, values: Float64[np.ndarray, " steps"], part: Part, points: int, smoothing: Smoothing
) -> Curve:
    """The values of a part in so many points: spikes are kept."""
    own = values[part.start : part.stop]
    if smoothing == "average":
        own = smooth(own, usual_span(len(own)))
    elif smoothing == "median":
        own = usual(own, min(_MEDIAN_SPAN, len(own) // 6))
    places = thin(own, points)
    x = steps.global_step[part.start : part.stop][places]
    fits = not len(x) or x[-1] <= _LARGEST_INT32
    return Curve(x.astype(np.int32 if fits else np.float64), own[places].astype(np.float32))


def whole_curve(steps: Steps, values: Float64[np.ndarray, " steps"], points: int, smoothing: Smoothing) -> Curve:
    """The values of all parts, each with its share of the points, one curve with gaps between."""
    curves = [part_curve(steps, values, part, share_of(part, steps, points), smoothing) for part in parts(steps)]
    curves = [curve for curve in curves if len(curve.x)]
    if not curves:
        return Curve(np.array([], np.int32), np.array([], np.float32))
    gap = np.array([np.nan], np.float32)
    x = [piece for curve in curves for piece in (curve.x, curve.x[-1:])]
    y = [piece for curve in curves for piece in (curve.y, gap)]
    return Curve(np.concatenate(x)[:-1], np.concatenate(y)[:-1])


def share_of(part: Part, steps: Steps, points: int) -> int:
    """A part's share of a curve's points. A short part gets some more, so that it can be zoomed into."""
    return max(32, points * (part.stop - part.start) // len(steps))
