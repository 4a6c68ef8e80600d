"""Curves with few points still show what happened."""

import numpy as np
import pytest

from mufun_jax.report.curves import smooth, thin, usual, usual_span


def test_thinning_keeps_every_spike_up_and_down():
    values = np.sin(np.arange(300_000) / 9_000)
    values[123_457], values[7], values[299_998] = 40.0, -40.0, 30.0
    places = thin(values, 2_000)
    assert len(places) <= 2_000
    assert {123_457, 7, 299_998, 0, 299_999} <= set(places.tolist())
    assert np.all(np.diff(places) > 0)
    between = np.interp(np.arange(300_000), places, values[places])
    assert np.median(np.abs(between - values)) < 0.01


def test_thinning_leaves_out_what_is_no_number_and_keeps_short_curves():
    values = np.array([1.0, np.nan, 3.0, np.inf, 5.0])
    assert thin(values, 10).tolist() == [0, 2, 4]
    assert thin(np.full(7, np.nan), 3).tolist() == []


def test_smoothing_is_the_weighted_mean_of_what_came_before():
    values = np.array([4.0, np.nan, 2.0, 8.0])
    newest = 2 / (3 + 1)
    weights = [(1 - newest) ** 2, 1 - newest, 1.0]
    smoothed = smooth(values, 3.0)
    assert smoothed[0] == pytest.approx(4.0), "the start has no bias"
    assert np.isnan(smoothed[1])
    assert smoothed[3] == pytest.approx(np.average([4.0, 2.0, 8.0], weights=weights))
    np.testing.assert_array_equal(smooth(values, 1.0), values)


def test_the_median_is_not_moved_by_a_slow_first_step():
    values = np.array([41.0, *[1.0] * 40, 9.0, *[1.0] * 40, np.nan])
    assert np.nanmax(usual(values, 7)) == 1.0
    assert np.isnan(usual(values, 7)[-1])


def test_spans_grow_with_the_stage_within_bounds():
    assert [usual_span(steps) for steps in (2, 60, 3_000, 10**6)] == [1.0, 9.0, 100.0, 500.0]
