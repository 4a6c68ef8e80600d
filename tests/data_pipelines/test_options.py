"""Wrong options: never right, never twice, and giving nothing away by how they lie to one another."""

import random
from collections import Counter
from itertools import combinations

import pytest
from scipy.stats import chisquare

from data_pipelines.keys import KEYS, parallel, relative
from data_pipelines.options import FASTEST, SLOWEST, octave_distance, wrong_options
from data_pipelines.questions import TASKS

POOL = ("rock", "Rock", "pop", "jazz", "blues", "metal", "POP")


def tempi(answer: int, seed: int) -> list[int]:
    return [int(option) for option in wrong_options("tempo", str(answer), (str(answer),), (), random.Random(seed))]


@pytest.mark.parametrize("answer", range(SLOWEST, FASTEST + 1))
def test_tempi_are_apart_even_when_doubled_and_halved(answer):
    for seed in range(20):
        wrong = tempi(answer, seed)
        assert len(wrong) == 3 and all(SLOWEST <= tempo <= FASTEST for tempo in wrong)
        for tempo in wrong:
            for near in (answer, 2 * answer, answer / 2):
                assert max(tempo, near) / min(tempo, near) >= 1.15
        for one, other in combinations([answer, *wrong], 2):
            for factor in (0.25, 0.5, 1, 2, 4):
                assert max(one * factor, other) / min(one * factor, other) >= 1.15


def test_the_answer_has_any_place_among_the_tempi():
    """Always taking the fastest, or a middle one, is right a quarter of the time; so for slow and fast music alike."""
    for answer in (75, 90, 120, 140):
        ranks = Counter(sorted([answer, *tempi(answer, seed)]).index(answer) for seed in range(2000))
        assert chisquare([ranks[place] for place in range(4)]).pvalue > 1e-4


def test_tempi_without_room():
    assert tempi(FASTEST + 1, 0) == tempi(SLOWEST - 1, 0) == []
    assert wrong_options("tempo", "60", ("60", "120"), (), random.Random(0)) == [], "two tempi at once"


def test_octave_distance():
    assert octave_distance(60, 240) == 0
    assert octave_distance(100, 142) == pytest.approx(octave_distance(142, 100)) == pytest.approx(0.494, abs=1e-3)


def test_key_options_are_often_near_and_do_not_give_the_answer_away():
    """Of the four keys of a chain, each is the answer equally often; which ends and middles are, the chain tells."""
    near, ends = 0, 0
    for seed in range(2000):
        answer = KEYS[seed % 24]
        options = wrong_options("key", answer, (answer,), KEYS, random.Random(seed))
        assert len({answer, *options}) == 4 and set(options) <= set(KEYS)
        if relative(answer) in options:
            links = [
                sum(other in (relative(key), parallel(key)) for other in (answer, *options))
                for key in (answer, *options)
            ]
            if sorted(links) == [1, 1, 2, 2]:
                near += 1
                ends += links[0] == 1
    assert 920 < near < 1110
    assert abs(ends / near - 0.5) < 0.05


def test_key_options_need_their_pool_and_are_not_true():
    truths = ("C major", "A minor")
    for seed in range(200):
        rng = random.Random(seed)
        assert not set(wrong_options("key", "C major", truths, KEYS, rng)) & set(truths)
        assert set(wrong_options("key", "C major", ("C major",), KEYS[:6], rng)) <= set(KEYS[1:6])


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"tempo"}))
def test_options_are_neither_true_nor_the_same_but_for_case(task):
    for seed in range(100):
        options = wrong_options(task, "rock", ("rock", "Jazz"), POOL, random.Random(seed))
        assert sorted(option.casefold() for option in options) == ["blues", "metal", "pop"]
        assert "pop" in options, "the first spelling of the pool"
    assert wrong_options(task, "rock", ("rock", "jazz", "blues"), POOL, random.Random(0)) == []
    assert wrong_options(task, "rock", ("rock",), (), random.Random(0)) == []
