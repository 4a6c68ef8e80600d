import importlib.util

import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics import registry
from mufun_jax.evaluate.metrics.measured import Measured, bootstrap_interval, fraction, mean_of
from mufun_jax.evaluate.metrics.registry import METRICS, find_metric, score_task

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
    assert bootstrap_interval(measured, [0] * 100) == (0.5, 0.5)


def test_interval_where_some_draws_define_nothing():
    """Two songs, one of which adds no words: a quarter of the draws has none."""
    measured = Measured({}, np.array([[1.0, 0.0], [1.0, 4.0]]), fraction)
    low, high = bootstrap_interval(measured, ["a", "b"])
    assert (low, high) == (0.25, 0.5)
