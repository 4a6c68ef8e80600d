import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmarks.published import published, published_average, published_group_averages


def test_the_published_averages_come_out_of_the_table():
    averages = {model: round(100 * published_average(model), 2) for model in published().models}
    assert averages == {
        "MuFun-Base": 65.67,
        "Qwen2.5-Omni-7B": 50.78,
        "Kimi-Audio-7B-Instruct": 49.93,
        "Qwen2-Audio-7B-Instruct": 43.62,
        "Gemini-2.0-flash": 49.75,
    }


def test_the_table_is_whole():
    table = published()
    assert (len(table.sets), len(table.averaged)) == (27, 26)
    assert sum(each.questions for each in table.sets) == 16_463
    assert [each.name for each in table.sets if not each.averaged] == ["gs_key"]
    assert {"mmau_music", "fma_small"} <= set(table.groups)
    assert all(0 < value < 1 for each in table.averaged for value in each.accuracy.values())
    assert table.source


def test_groups_are_plain_means_too():
    groups = published_group_averages("MuFun-Base")
    assert groups["key"] == pytest.approx((0.504 + 0.341) / 2)
    assert set(groups) == set(published().groups.values())


def test_a_model_that_was_not_published():
    with pytest.raises(UserError, match=r"no published scores of 'MuFun-base' \(did you mean 'MuFun-Base'\?\)"):
        published_average("MuFun-base")
    with pytest.raises(UserError, match="no published scores"):
        published_group_averages("mine")
