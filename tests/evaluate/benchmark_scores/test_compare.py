from dataclasses import replace

import pytest
from rich.console import Console
from statsmodels.stats.contingency_tables import mcnemar

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_scores.compare import compare, comparison_table
from mufun_jax.evaluate.statistics import holm
from tests.evaluate.results import failed, result_of, results

SETS = {"disco": "genre", "gs_key_30s": "key"}


def guesses(skill, seed, **more):
    return results("guess", SETS, questions=60, songs=20, skill=skill, seed=seed, **more)


def test_pairs_are_counted_and_tested():
    first, second = guesses(0.5, 1), guesses(0.8, 2)
    comparison = compare(first, second)
    for each in (*comparison.sets, comparison.overall):
        pairs = [
            (a.letter == a.gold, b.letter == b.gold)
            for a, b in zip(first, second, strict=True)
            if each is comparison.overall or a.set == each.name
        ]
        table = [[pairs.count((True, True)), pairs.count((True, False))]]
        table += [[pairs.count((False, True)), pairs.count((False, False))]]
        assert [[each.both, each.only_first], [each.only_second, each.neither]] == table
        discordant = each.only_first + each.only_second
        assert each.p == pytest.approx(vars(mcnemar(table, exact=discordant < 25))["pvalue"])
        assert each.n == len(pairs)
        assert each.difference == pytest.approx((each.only_second - each.only_first) / each.n)
        assert each.interval and each.interval[0] < each.difference < each.interval[1]
    assert [each.p_holm for each in comparison.sets] == holm([each.p for each in comparison.sets])
    assert comparison.overall.p < 0.01


def test_a_run_compared_with_itself_does_not_differ():
    found = guesses(0.5, 1)
    overall = compare(found, found).overall
    assert (overall.p, overall.difference, overall.only_first, overall.only_second) == (1.0, 0.0, 0, 0)


def test_only_the_song_and_the_own_order_count_and_what_is_unmatched_is_told():
    first = guesses(0.5, 1, rotations=2, conditions=["audio", "text_only"])
    second = guesses(0.5, 1)[3:]
    comparison = compare(first, second)
    assert (comparison.overall.n, comparison.unmatched_first, comparison.unmatched_second) == (117, 3, 0)
    assert comparison.overall.only_first == 0


def test_an_error_is_wrong():
    right = [result_of("oracle", number=number, song=str(number)) for number in range(4)]
    comparison = compare(right, [failed(right[0]), *right[1:]])
    assert (comparison.overall.only_first, comparison.overall.both) == (1, 3)


def test_by_another_way():
    first, second = guesses(0.5, 1), guesses(0.8, 2)
    assert compare(first, second, "letter_log_probability").overall == compare(first, second).overall
    with pytest.raises(UserError, match="the second run has no answers by 'constrained'"):
        compare(first, [replace(result, constrained=None) for result in second], "constrained")


def test_runs_that_cannot_be_compared():
    found = guesses(0.5, 1)
    with pytest.raises(UserError, match="share no question"):
        compare(found, [replace(result, id="x" + result.id) for result in found])
    with pytest.raises(UserError, match="is of set 'disco' with answer"):
        compare(found, [replace(found[0], gold=(found[0].gold + 1) % 4), *found[1:]])
    with pytest.raises(UserError, match="the first run answers question 'disco-0' twice"):
        compare([found[0], *found], found)


def test_the_table_fits_a_terminal():
    console = Console(width=100, record=True)
    pair = [
        results("guess", {"ballroom_genres": "genre"}, questions=9999, songs=999, skill=skill, seed=seed)
        for seed, skill in enumerate((0.5, 0.53))
    ]
    console.print(comparison_table(compare(pair[0], pair[1]), "x[red]mine/checkpoint", "a/far-longer/name"))
    text = console.export_text()
    assert "all questions" in text and "x[red…" in text and "ballroom_genres" in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "…" not in text.replace("x[red…", "").replace("a/far…", ""), "nothing is cut but the models' names"
