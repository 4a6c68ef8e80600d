"""Scores of models whose answers are known: by every way, under every condition, in every bad case."""

import math
from dataclasses import replace

import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import BadRow
from mufun_jax.evaluate.benchmark_scores.marking import WAYS
from mufun_jax.evaluate.benchmark_scores.scores import score_results
from mufun_jax.evaluate.result import CONDITIONS, OptionLogProbability
from mufun_jax.evaluate.statistics import wilson
from tests.evaluate.results import failed, result_of, results

SETS = {"disco": "genre", "gs_key": "key", "gs_key_30s": "key"}


def score(found, bad=(), benchmark="mucue", groups=None):
    return score_results(found, list(bad), benchmark=benchmark, groups=groups or SETS)


@pytest.mark.parametrize("rotations", [1, 4])
def test_an_oracle_is_right_in_every_way(rotations):
    scores = score(results("oracle", SETS, rotations=rotations, conditions=CONDITIONS))
    assert scores.ways == WAYS
    for each in scores.sets:
        assert {way: accuracy.accuracy for way, accuracy in each.ways.items()} == dict.fromkeys(WAYS, 1.0)
        assert each.published_convention and each.published_convention.accuracy == 1.0
        assert (each.n, each.errors, each.unreadable) == (24, 0, 0)
        assert each.ways["generated"].clustered[0] < 0.6, "six songs say little"
    for pooled in (*scores.groups, scores.overall):
        assert set(pooled.average) == set(pooled.micro) == set(WAYS)
        assert all(accuracy.accuracy == 1.0 for accuracy in pooled.average.values())
        assert pooled.published_convention == 1.0


def test_always_b_scores_the_share_of_b():
    found = results("always_b", SETS, questions=30)
    scores = score(found)
    for each in scores.sets:
        share = sum(result.gold == 1 for result in found if result.set == each.name) / 30
        assert 0 < share < 1
        assert {way: accuracy.accuracy for way, accuracy in each.ways.items()} == dict.fromkeys(WAYS, share)
        assert each.always["B"] == pytest.approx(share)
        assert each.published_convention and each.published_convention.accuracy == share
        assert each.majority == max(each.always.values()) >= share


def test_always_b_is_found_out_by_rotations():
    """In four orders each option is B once: a quarter generated; and no option is likelier than another on average."""
    each = score(results("always_b", {"disco": "genre"}, rotations=4)).sets[0]
    assert each.ways["generated"].accuracy == each.ways["constrained"].accuracy == 0.25
    assert each.ways["letter_log_probability"].accuracy == 0
    assert each.ties["letter_log_probability"] == 24


@pytest.mark.parametrize("rotations", [1, 4])
def test_a_mute_model_is_wrong_in_every_way_and_undefined_by_the_published_convention(rotations):
    scores = score(results("mute", SETS, rotations=rotations))
    for each in scores.sets:
        assert set(each.ways) == set(WAYS) - {"constrained"}
        assert all(accuracy.accuracy == 0 for accuracy in each.ways.values())
        assert each.published_convention is None
        assert each.unreadable == each.replies == 24 * rotations
        assert each.ties["text_log_probability"] == 24
    assert scores.overall.published_convention is None


def test_log_probabilities_are_averaged_over_rotations_and_mapped_back():
    """Shown as (0, 1) and as (1, 0), a model that adds 3 to whatever stands first, and 1 to the right one."""
    shown = [result_of("mute", options=2, rotation=rotation, gold=1) for rotation in (0, 1)]

    def heard(result):
        options = [3.0 * (i == 0) + 1.0 * (place == 1) - 9 for i, place in enumerate(result.option_order)]
        return replace(result, log_probabilities=tuple(OptionLogProbability(o, 2 * o, 4) for o in options))

    one, both = score([heard(shown[0])]), score([heard(result) for result in shown])
    for way in WAYS[1:4]:
        assert one.sets[0].ways[way].accuracy == 0.0
        assert both.sets[0].ways[way].accuracy == 1.0
    assert (one.orders, both.orders, both.incomplete) == (1, 2, 0)
    missing = score([heard(shown[0]), replace(shown[1], log_probabilities=None)])
    assert missing.sets[0].ways["letter_log_probability"].accuracy == 0.0, "half of the orders is no average"


def test_length_normalisation_divides_by_the_tokens():
    long = result_of("mute", options=2, gold=0)
    options = (OptionLogProbability(-1.0, -8.0, 8), OptionLogProbability(-2.0, -4.0, 2))
    each = score([replace(long, log_probabilities=options)]).sets[0]
    assert each.ways["text_log_probability"].accuracy == 0.0
    assert each.ways["text_log_probability_per_token"].accuracy == 1.0
    assert each.ways["letter_log_probability"].accuracy == 1.0


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_log_probability_that_is_no_number_is_an_error_and_wrong(number):
    good = result_of("oracle", gold=0)
    assert good.log_probabilities
    options = (OptionLogProbability(number, -1.0, 2), *good.log_probabilities[1:])
    each = score([replace(good, log_probabilities=options)]).sets[0]
    assert each.errors == 1
    assert each.ways["letter_log_probability"].accuracy == 0.0
    assert each.ways["text_log_probability"].accuracy == each.ways["generated"].accuracy == 1.0
    no_tokens = tuple(replace(option, text_tokens=0) for option in good.log_probabilities)
    each = score([replace(good, log_probabilities=no_tokens)]).sets[0]
    assert (each.errors, each.ways["text_log_probability_per_token"].accuracy) == (1, 0.0)


def test_an_impossible_option_is_no_error():
    good = result_of("oracle", gold=0)
    assert good.log_probabilities
    options = (good.log_probabilities[0], *[OptionLogProbability(-math.inf, -math.inf, 2)] * 3)
    each = score([replace(good, log_probabilities=options)]).sets[0]
    assert (each.errors, each.ways["letter_log_probability"].accuracy) == (0, 1.0)


def test_bad_rows_and_errors_are_wrong_and_counted():
    found = results("oracle", {"disco": "genre"}, questions=10)
    found[3] = failed(found[3])
    scores = score(found, [BadRow("x", "disco", "three options"), BadRow("y", "salsa", "no audio")])
    disco, salsa = scores.sets
    assert (disco.n, disco.bad_rows, disco.errors) == (11, 1, 1)
    assert all(accuracy.accuracy == pytest.approx(9 / 11) for accuracy in disco.ways.values())
    assert disco.ways["generated"].wilson == pytest.approx(wilson(9 / 11, 11))
    assert disco.published_convention and disco.published_convention.accuracy == 1.0
    assert (salsa.name, salsa.group, salsa.n) == ("salsa", "salsa", 1)
    assert salsa.ways["generated"].accuracy == 0.0
    assert salsa.published_convention is None
    assert sum(disco.always.values()) == pytest.approx(10 / 11)


def test_all_errors():
    scores = score([failed(result) for result in results("oracle", SETS)])
    assert all(each.ways["generated"].accuracy == 0 and each.errors == 24 for each in scores.sets)
    assert all(each.replies == each.unreadable == 0 and each.published_convention is None for each in scores.sets)


def test_nothing_at_all_and_one_question():
    empty = score([])
    assert (empty.sets, empty.groups, empty.overall.average) == ((), (), {})
    assert (empty.overall.majority, empty.overall.published_convention) == (None, None)
    one = score([result_of("oracle")])
    assert one.overall.average["generated"].clustered == (0.0, 1.0), "a song says nothing of other songs"
    assert one.sets[0].ways["generated"].standard_error is None


def test_the_judge_and_none_under_the_published_convention():
    judged = replace(result_of("oracle", number=0), judged=result_of("oracle", number=0).gold, letter=None)
    unread = replace(result_of("oracle", number=1), letter=None, reply="Hm.")
    blank = replace(result_of("oracle", number=2), letter=None, reply=" \n")
    each = score([judged, unread, blank]).sets[0]
    assert each.published_convention and (each.published_convention.n, each.published_convention.correct) == (2, 1.0)
    assert (each.unreadable, each.ways["generated"].accuracy) == (3, 0.0)


def test_gs_key_is_listed_but_not_averaged():
    found = results("oracle", {"gs_key_30s": "key"}) + results("mute", {"gs_key": "key"})
    scores = score(found)
    assert [(each.name, each.averaged) for each in scores.sets] == [("gs_key", False), ("gs_key_30s", True)]
    assert scores.overall.average["generated"].accuracy == scores.overall.micro["generated"].accuracy == 1.0
    assert scores.overall.sets == scores.groups[0].sets == ("gs_key_30s",)
    other = score(found, benchmark="mine")
    assert other.overall.average["generated"].accuracy == 0.5
    alone = score(results("oracle", {"gs_key": "key"}))
    assert (alone.groups[0].sets, alone.groups[0].average, alone.groups[0].n) == ((), {}, 0)


def test_the_plain_mean_and_the_micro_average():
    found = results("oracle", {"disco": "genre"}, questions=30) + results("mute", {"gs_key_30s": "key"}, questions=10)
    overall = score(found).overall
    assert overall.average["generated"].accuracy == 0.5
    assert overall.micro["generated"].accuracy == 0.75
    assert overall.n == overall.micro["generated"].n == 40


def test_baselines_have_their_own_n():
    found = results("oracle", {"disco": "genre"}, questions=20)
    found += results("always_b", {"disco": "genre"}, questions=8, conditions=["text_only"])
    scores = score(found, [BadRow("x", "disco", "no audio")])
    each = scores.sets[0]
    assert scores.conditions == ("audio", "text_only")
    assert list(each.baselines) == ["text_only"]
    assert each.baselines["text_only"]["generated"].n == 8
    assert each.baselines["text_only"]["generated"].accuracy == sum(r.gold == 1 for r in found[20:]) / 8
    assert scores.overall.baselines["text_only"]["generated"].n == 8


def test_always_follows_the_order_in_which_options_were_shown():
    shown = replace(result_of("oracle", gold=2), option_order=(2, 0, 1, 3))
    assert score([shown]).sets[0].always == {"A": 1.0}


def test_fewer_orders_than_the_others_are_counted():
    found = results("oracle", {"disco": "genre"}, rotations=2)
    assert score(found[:-1]).incomplete == 1
    assert score(found).incomplete == 0


def test_what_was_not_heard_is_summed():
    cut = replace(result_of("oracle"), seconds_dropped=12.5)
    each = score([cut, result_of("oracle", number=1)]).sets[0]
    assert (each.questions_cut, each.seconds_dropped) == (1, 12.5)


def test_results_that_cannot_be_counted():
    with pytest.raises(UserError, match=r"question 'disco-0' is answered twice under audio, rotation 0"):
        score([result_of("oracle"), result_of("oracle")])
    for wrong in ({"option_order": (0, 0, 1, 2)}, {"gold": 4}, {"log_probabilities": ()}):
        with pytest.raises(UserError, match="do not go together"):
            score([replace(result_of("oracle"), **wrong)])


def test_sets_come_in_the_order_of_the_benchmark():
    scores = score(results("oracle", {"gs_key_30s": "key", "disco": "genre"}))
    assert [each.name for each in scores.sets] == ["disco", "gs_key_30s"]
    assert [group.name for group in scores.groups] == ["genre", "key"]


def test_fewer_options_have_fewer_orders():
    rotated = [*results("oracle", {"a": "x"}, rotations=4), *results("oracle", {"b": "x"}, options=2, rotations=2)]
    scores = score_results(rotated, [], benchmark="jsonl", groups={})
    assert (scores.orders, scores.incomplete) == (4, 0)
    assert score_results(rotated[:-1], [], benchmark="jsonl", groups={}).incomplete == 1
