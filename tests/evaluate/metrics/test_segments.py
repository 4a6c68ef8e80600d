import mir_eval
import numpy as np
import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics.registry import score_task

REFERENCE = "0:00-0:10 intro; 0:10-0:20 verse; 0:20-0:30 chorus; 0:30-0:40 verse"


def test_boundaries_by_hand():
    """Of 10, 20, 30 s the reply has 10.4 and, 2 s off, 22; its 35 s is none."""
    scores = score_task("segments", ["0-10.4 a; 10.4-22 b; 22-35 c; 35-40 d"], [REFERENCE])
    assert (scores["precision_0.5"], scores["recall_0.5"]) == (1 / 3, 1 / 3)
    assert (scores["precision_3"], scores["recall_3"]) == (2 / 3, 2 / 3)
    scores = score_task("segments", ["0-10.4 a; 10.4-40 b"], [REFERENCE])
    assert (scores["precision_3"], scores["recall_3"], scores["f_3"]) == (1.0, 1 / 3, 0.5)


def test_no_hit_for_where_the_song_begins_and_ends():
    scores = score_task("segments", ["0:00-0:40 song", REFERENCE], [REFERENCE] * 2)
    assert (scores["f_0.5"], scores["f_3"], scores["pairwise_recall"], scores["unreadable"]) == (0.5, 0.5, 1.0, 0.0)
    # Of all pairs of moments those within 1/4 (intro), 2/4 (both verses) and 1/4 (chorus) are of one label.
    assert scores["pairwise_precision"] == pytest.approx((1 + (1 + 4 + 1) / 16) / 2, abs=0.01)


def test_mean_over_songs_and_unreadable_ones_have_nothing():
    replies = [REFERENCE, "no idea", "0:00-0:12 a; 0:10-0:40 b"]
    scores = score_task("segments", replies, [REFERENCE] * 3)
    for name in ("precision_0.5", "recall_3", "f_3", "pairwise_f"):
        assert scores[name] == pytest.approx(1 / 3)
    assert (scores["unreadable"], scores["overlapping"], scores["past_end"]) == (1.0, 1.0, 0.0)


def test_sections_past_the_end_are_cut_off_and_counted():
    scores = score_task("segments", [REFERENCE.replace("0:40", "0:55") + "; 0:55-1:10 outro"], [REFERENCE])
    assert (scores["f_0.5"], scores["pairwise_f"], scores["past_end"]) == (1.0, 1.0, 1.0)


def test_lists_of_starts():
    """Where the end is not said, the last section's is no boundary, and labels are not compared."""
    starts = "0:00 intro, 0:10 verse, 0:20 chorus"
    for reply in (starts, "0:00-0:10 intro; 0:10-0:20 verse; 0:20-0:25 chorus"):
        scores = score_task("segments", [reply], [starts])
        assert (scores["f_0.5"], scores["labelled"]) == (1.0, 0.0)
        assert "pairwise_f" not in scores
    assert score_task("segments", ["0:00 intro, 0:10 verse"], [REFERENCE])["recall_3"] == pytest.approx(1 / 3)
    # A first section that begins later has a boundary there.
    assert score_task("segments", ["0:05 intro, 0:10 verse"], ["0:05 intro, 0:10 verse"])["f_0.5"] == 1.0
    assert score_task("segments", ["0:00 intro, 0:10 verse"], ["0:05 intro, 0:10 verse"])["recall_0.5"] == 0.5


def test_agrees_with_mir_eval():
    rng = np.random.default_rng(1)
    lists = []
    for _ in range(2):
        times = np.array([0, *np.sort(rng.uniform(1, 59, 8)).round(1), 60])
        lists.append(
            (np.stack([times[:-1], times[1:]], axis=1), [str(name) for name in rng.choice(["A", "b", "c"], 9)])
        )
    texts = ["; ".join(f"{a}-{b} {label}" for (a, b), label in zip(*one, strict=True)) for one in lists]
    scores = score_task("segments", [texts[1]], [texts[0].replace("A", "a")])
    for window in (0.5, 3.0):
        wanted = mir_eval.segment.detection(lists[0][0], lists[1][0], window=window, trim=True)
        assert [scores[f"{name}_{window:g}"] for name in ("precision", "recall", "f")] == pytest.approx(wanted)
    wanted = mir_eval.segment.pairwise(*lists[0], *lists[1])
    assert [scores[f"pairwise_{name}"] for name in ("precision", "recall", "f")] == pytest.approx(wanted)
    assert 0 < scores["f_3"] < 1
    assert 0 < scores["pairwise_f"] < 1


@pytest.mark.parametrize(
    ("reference", "wrong"),
    [
        ("ABAB", "is no list of sections with their times"),
        ("0:00-0:12 a; 0:10-0:20 b", "is no list of sections"),
        ("0:00-1:00 song", "has one section"),
        ("0:00-0:10 a; 0:10-40:00 b", "goes on after 1800 s"),
    ],
)
def test_references_that_cannot_be_scored_against(reference, wrong):
    with pytest.raises(UserError, match=rf"metric segments: the answer .* {wrong}"):
        score_task("segments", [REFERENCE], [reference])
