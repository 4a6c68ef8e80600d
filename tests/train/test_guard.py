import json

import pytest

from mufun_jax.config import GuardConfig
from mufun_jax.errors import UserError
from mufun_jax.train.guard import BadStepError, Guard, Skipped


def metrics(norm: float, loss: float = 1.0) -> dict:
    return {"loss": loss, "gradient_norm": norm}


def guard(norms, **config) -> Guard:
    made = Guard(GuardConfig(**config), "align")
    for step, norm in enumerate(norms, 1):
        made.check(step, metrics(norm))
    return made


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (metrics(1.0, float("nan")), "loss is nan"),
        (metrics(1.0, float("inf")), "loss is inf"),
        (metrics(float("nan")), "gradient_norm is nan"),
        (metrics(float("-inf")), "gradient_norm is -inf"),
    ],
)
def test_what_is_not_finite_is_refused_from_the_first_step_on(values, said):
    with pytest.raises(BadStepError, match=rf"^stage align, step 1: {said}; lower the learning rate"):
        guard([]).check(1, values)


def test_a_norm_over_twenty_medians_is_refused_and_not_counted():
    """The median of 1 to 9 and 5 is 5: 100 is let through, 100.1 is not, again and again."""
    norms = [1, 2, 3, 4, 5, 6, 7, 8, 9, 5]
    guard(norms).check(11, metrics(100.0))
    refusing = guard(norms)
    for _ in range(20):
        message = r"step 11: gradient_norm is 100.1, 20 times the median 5 of the 10 steps before"
        with pytest.raises(BadStepError, match=message):
            refusing.check(11, metrics(100.1))


def test_the_median_runs():
    """Of the last ten norms, which are 100: 1,500 is no spike any more."""
    guard([1.0] * 10 + [15.0] * 10 + [100.0] * 10, window=10).check(31, metrics(1500.0))
    with pytest.raises(BadStepError):
        guard([1.0] * 20 + [15.0] * 10, window=50).check(31, metrics(1500.0))


def test_nine_norms_are_no_median():
    guard([1.0] * 9).check(10, metrics(1e6))
    with pytest.raises(BadStepError):
        guard([1.0] * 10).check(11, metrics(1e6))


def test_after_a_stop_it_judges_by_the_lines_of_its_stage():
    lines = [{"stage": "warmup", **metrics(1e6)}] * 50 + [{"stage": "align", **metrics(1.0)}] * 10
    lines.append({"stage": "align", "skipped": "loss is nan"})
    resumed = Guard(GuardConfig(), "align", lines)
    with pytest.raises(BadStepError, match="median 1 of the 10 steps before"):
        resumed.check(11, metrics(21.0))


def test_skipped_batches_are_on_the_disk_at_once(tmp_path):
    bad = BadStepError("align", 7, "loss is nan", "")
    Skipped(tmp_path / "skipped.json", 2).add(bad, write=True)
    again = Skipped(tmp_path / "skipped.json", 2)
    assert again.of("align") == {7: "loss is nan"} and again.of("long") == {}
    again.add(BadStepError("long", 1, "loss is inf", ""), write=False)
    assert json.loads((tmp_path / "skipped.json").read_text()) == {"align": {"7": "loss is nan"}}
    with pytest.raises(UserError, match=r"^stage align, step 8: .*; 2 batches were passed over already"):
        again.add(BadStepError("align", 8, "loss is nan", ""), write=True)
