from collections import Counter

import numpy as np
import pytest

from data_pipelines.mixture import Epochs, Mixture, make_order, shares
from mufun_jax.errors import ConfigError


def drawn(order, start, stop):
    return [tuple(pair) for pair in order[range(start, stop)].tolist()]


def order(weights, examples, *, seconds=None, epochs=None, weigh_by="examples", temperature=1.0, seed=0):
    seconds = seconds or [1.0] * len(examples)
    options = {"epochs": epochs, "weigh_by": weigh_by, "temperature": temperature, "seed": seed}
    return make_order(weights, examples, seconds, **options)


@pytest.mark.parametrize("examples", [1, 2, 7, 1000, 70_000])
def test_every_example_of_a_set_comes_once_a_round_in_a_new_order(examples):
    mixture = Mixture([examples], [1.0], seed=3)
    rounds = [[example for _, example in drawn(mixture, n * examples, (n + 1) * examples)] for n in range(2)]
    for one in rounds:
        assert sorted(one) == list(range(examples))
    if examples > 2:
        assert rounds[0] != rounds[1] != list(range(examples))
        other = [example for _, example in drawn(Mixture([examples], [1.0], seed=4), 0, examples)]
        assert other != rounds[0]


def test_what_comes_as_number_n_depends_on_nothing_but_seed_and_n():
    whole = drawn(order({"a": 3.0, "b": 1.0}, [50, 7], seed=5), 0, 3000)
    again = order({"a": 3.0, "b": 1.0}, [50, 7], seed=5)
    assert drawn(again, 2900, 3000) == whole[2900:], "asked for from the end"
    assert [drawn(again, n, n + 1)[0] for n in range(40, 60)] == whole[40:60]


def test_shares_are_of_examples_and_exact():
    counts = Counter(chosen for chosen, _ in drawn(order({"a": 3.0, "b": 1.0}, [50, 7]), 0, 10_000))
    assert counts == {0: 7500, 1: 2500}
    first = Counter(chosen for chosen, _ in drawn(order({"a": 3.0, "b": 1.0}, [50, 7]), 0, 40))
    assert first == {0: 30, 1: 10}, "evenly spread, not one set after the other"
    with pytest.raises(ConfigError, match=r"'b' would be 1e-05 of what is drawn; at least 1 of 10000"):
        order({"a": 1.0, "b": 1e-5}, [50, 7])
    with pytest.raises(ConfigError, match=r"the weight inf of 'a'"):
        order({"a": float("inf"), "b": 1.0}, [50, 7])


def test_shares_of_seconds_and_of_size():
    # Songs of 100 s and notes of 1 s, as much audio of each: a hundred notes for a song.
    assert shares([1.0, 1.0], [10, 10], [100.0, 1.0], "seconds", 1.0) == pytest.approx([1 / 101, 100 / 101])
    assert shares([1.0, 1.0], [900, 100], [1.0, 1.0], "size", 1.0) == pytest.approx([0.9, 0.1])
    assert shares([1.0, 2.0], [900, 100], [1.0, 1.0], "size", 2.0) == pytest.approx([30 / 50, 20 / 50])
    assert shares([1.0, 1.0], [900, 100], [1.0, 1.0], "size", 1e9) == pytest.approx([0.5, 0.5], abs=1e-6)
    with pytest.raises(ConfigError, match="a set of text has none"):
        shares([1.0, 1.0], [10, 10], [100.0, 0.0], "seconds", 1.0)


def test_an_epoch_has_every_example_exactly_as_often_as_its_weight_says():
    epochs = order({"a": 1.0, "b": 2.0, "c": 0.5}, [30, 5, 8], epochs=2)
    assert isinstance(epochs, Epochs)
    assert len(epochs) == 2 * (30 + 10 + 4)
    halves = []
    for number in range(2):
        counts = Counter(drawn(epochs, number * 44, (number + 1) * 44))
        assert all(counts[0, example] == 1 for example in range(30))
        assert all(counts[1, example] == 2 for example in range(5))
        halves.append({example for chosen, example in counts if chosen == 2})
        assert len(halves[-1]) == 4
    assert halves[0].isdisjoint(halves[1]), "the other half in the next epoch"
    assert drawn(epochs, 0, 44) != drawn(epochs, 44, 88)
    assert len(drawn(epochs, 80, 200)) == 8, "it ends"


def test_sets_of_an_epoch_are_shuffled_together():
    chosen = np.array(drawn(order({"a": 1.0, "b": 1.0}, [500, 500], epochs=1), 0, 1000))[:, 0]
    assert 180 < chosen[:400].sum() < 220


def test_mixtures_that_draw_nothing_are_refused():
    with pytest.raises(ConfigError, match="'b' has no example that fits a row"):
        order({"a": 1.0, "b": 1.0}, [3, 0])
    with pytest.raises(ConfigError, match="a set is never drawn from"):
        Epochs([3, 1], [1.0, 0.3], 3, 0)


def test_what_an_epoch_lacks_of_a_fraction_the_next_has():
    for weight, count, epochs in ((0.5, 5, 4), (1.5, 3, 2), (0.3, 1, 5), (0.1, 4, 10)):
        order = Epochs([7, count], [1.0, weight], epochs, 0)
        counts = Counter(example for chosen, example in drawn(order, 0, len(order)) if chosen == 1)
        assert sum(counts.values()) == int(epochs * weight * count + 1e-9)
        assert max(counts.values()) - min([*counts.values(), 0 if len(counts) < count else 99]) <= 1
