import importlib.util

import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics import registry
from mufun_jax.evaluate.metrics.measured import Measured, bootstrap_interval, fraction, mean_of
from mufun_jax.evaluate.metrics.registry import METRICS, find_metric, score_task
from mufun_jax.evaluate.statistics import unseen_share, wilson

RIGHT = {
    "lyrics": "la la la",
    "key": "C major",
    "tempo": "120",
    "chords": "0-2 C; 2-3 G",
    "segments": "0:00-0:10 a; 0:10-0:20 b",
    "captions": "a slow piano piece",
}


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_its_headline_and_counts(name):
    scores = score_task(name, [RIGHT[name]] * 2, [RIGHT[name]] * 2)
    best = {"lyrics": 0.0, "captions": 100.0}.get(name, 1.0)
    assert (scores["n"], scores["unreadable"]) == (2.0, 0.0)
    assert scores[METRICS[name].headline] == pytest.approx(best)
    assert METRICS[name].lower_is_better == (name == "lyrics")
    chosen = find_metric(name)
    measured = chosen.measure([RIGHT[name], "", "?"], [RIGHT[name]] * 3)
    assert measured.headline(measured.sums.sum(axis=0)) == pytest.approx(measured.figures[METRICS[name].headline])
    assert measured.figures["unreadable"] >= 1


def test_names_and_arguments():
    with pytest.raises(UserError, match=r"no metric 'temp' \(did you mean 'tempo'\?\); there are lyrics, key"):
        score_task("temp", ["120"], ["120"])
    for spelt in ("tempo:fast", "lyrics:", "key:"):
        with pytest.raises(UserError, match=rf"metric '{spelt}': "):
            find_metric(spelt)


def test_a_missing_library_is_named(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == "jiwer" else found(name))
    with pytest.raises(
        UserError, match=r"metrics need jiwer, which is not installed: pip install 'mufun_jax\[metrics\]'"
    ):
        find_metric("key")


def test_replies_and_references_go_together():
    with pytest.raises(UserError, match="2 replies for 1 references"):
        score_task("tempo", ["120", "120"], ["120"])
    with pytest.raises(UserError, match="0 replies for 0 references"):
        score_task("tempo", [], [])
    with pytest.raises(UserError, match="reference 2, metric tempo: the answer 'fast' is no tempo"):
        score_task("tempo", ["120", "120"], ["120", "fast"])


def test_interval_of_songs():
    """The mean of 100 zeros and ones: by the normal distribution 0.5 -/+ 1.96 * 0.05. In pairs about one song each the
    same replies are 50 songs, and the interval is wider by the root of 2."""
    values = [float(place // 2 % 2) for place in range(100)]
    measured = mean_of(values, {})
    alone = bootstrap_interval(measured, list(range(100)))
    assert alone == pytest.approx((0.402, 0.598), abs=0.015)
    paired = bootstrap_interval(measured, [place // 2 for place in range(100)])
    assert paired[1] - paired[0] == pytest.approx(2 * 1.96 * 0.05 * 2**0.5, abs=0.03)
    assert bootstrap_interval(measured, list(range(100))) == alone
    assert bootstrap_interval(measured, [0] * 100) == (0.0, 1.0), "one song says nothing"


@pytest.mark.parametrize(("value", "expected"), [(1.0, (0.839, 1.0)), (0.0, (0.0, 0.161))])
def test_the_interval_of_songs_that_are_all_right_or_wrong_is_no_point(value, expected):
    """Wilson's of 20 songs (by hand: 1 / (1 + 3.84/20) = 0.839), a little wider for few songs. Not of the replies."""
    low, high = bootstrap_interval(mean_of([value] * 40, {}), [place // 2 for place in range(40)])
    assert (low, high) == pytest.approx(expected, abs=0.022)
    assert (low, high) != pytest.approx(expected, abs=0.015)
    assert (low, high) == pytest.approx(wilson(value, 20 * (1.96 / 2.093) ** 2), abs=1e-3)


def test_the_interval_of_nearly_all_right_is_not_narrower_than_that_of_all_right():
    """One of 20 songs wrong: draws give 0.85 to 1, and Wilson's interval begins at 0.76."""
    low, high = bootstrap_interval(mean_of([1.0] * 19 + [0.0], {}), list(range(20)))
    assert (low, high) == (pytest.approx(0.95 * (1 - unseen_share(20))), 1.0)
    assert low < 0.81


def test_the_interval_of_a_figure_with_other_bounds():
    """No word wrong on 20 songs, or all captions as they should be; and more words wrong than there are."""
    words = np.tile([0.0, 7.0], (20, 1))
    low, high = bootstrap_interval(Measured({}, words, fraction), list(range(20)))
    assert (low, high) == (0.0, pytest.approx(unseen_share(20)))
    low, high = bootstrap_interval(Measured({}, words, lambda sums: 100.0, bounds=(0.0, 100.0)), list(range(20)))
    assert (low, high) == (pytest.approx(100 * (1 - unseen_share(20))), 100.0)
    low, high = bootstrap_interval(Measured({}, np.tile([14.0, 7.0], (20, 1)), fraction), list(range(20)))
    assert (low, high) == (pytest.approx(2 * (1 - unseen_share(20))), 2.0)


def test_interval_where_some_draws_define_nothing():
    """Two songs, one of which adds no words: a quarter of the draws has none. The bounds are such as widen nothing."""
    measured = Measured({}, np.array([[1.0, 0.0], [1.0, 4.0]]), fraction, bounds=(0.5, 0.5))
    low, high = bootstrap_interval(measured, ["a", "b"])
    assert (low, high) == (0.25, 0.5)
