import numpy as np

from data_pipelines.encode import Budget, EncodedExample
from data_pipelines.pack import build_row, pack_rows

BUDGET = Budget(positions=40, windows=3, targets=6)
WINDOW_SAMPLES, TOKENS_PER_WINDOW = 8, 5


def example(number: int, text: int, windows: int, targets: int) -> EncodedExample:
    """Text ids start at 100 x number, so that every token tells whose it is."""
    length = text + windows * TOKENS_PER_WINDOW
    tokens = np.arange(length, dtype=np.int32) + 100 * number
    audio_slot = np.full(length, -1, np.int32)
    audio_slot[1 : 1 + windows * TOKENS_PER_WINDOW] = np.arange(windows * TOKENS_PER_WINDOW)
    target_index = np.arange(length - targets - 1, length - 1, dtype=np.int32)
    return EncodedExample(
        tokens=tokens,
        audio_slot=audio_slot,
        samples=np.full((windows, WINDOW_SAMPLES), number, np.int16),
        target_index=target_index,
        targets=tokens[target_index + 1],
        dropped_windows=number % 2,
    )


def random_sizes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    windows = rng.integers(0, 4, count)
    return np.stack([rng.integers(5, 20, count) + windows * TOKENS_PER_WINDOW, windows, rng.integers(1, 4, count)], 1)


def test_every_example_is_in_one_row_and_no_budget_is_broken():
    sizes = random_sizes(200)
    rows = pack_rows(sizes, BUDGET)
    assert sorted(example for row in rows for example in row) == list(range(200))
    for row in rows:
        assert (sizes[row].sum(axis=0) <= [BUDGET.positions, BUDGET.windows, BUDGET.targets]).all()
    assert len(rows) < 0.8 * len(sizes)
    assert [row[0] for row in rows] == sorted(row[0] for row in rows), "in the order of their first examples"


def test_each_budget_alone_limits_a_row():
    for one in ([25, 0, 1], [5, 2, 1], [5, 0, 4]):
        assert len(pack_rows(np.array([one, one]), BUDGET)) == 2
    assert len(pack_rows(np.array([[10, 1, 2]] * 3), BUDGET)) == 1


def test_rows_of_clips_of_4_to_60_seconds_use_nine_tenths_of_their_positions():
    """The row of the long stages: 4,096 positions, 13 windows of 30 s; an answer's text beside 300 or 600 tokens."""
    rng = np.random.default_rng(0)
    windows = 1 + (rng.uniform(4, 60, 5000) > 30.5)
    text = rng.integers(60, 200, 5000)
    sizes = np.stack([300 * windows + text, windows, text // 4], axis=1)
    blocks = [sizes[start : start + 512] for start in range(0, 5000, 512)]
    rows = sum(len(pack_rows(block, Budget(4096, 13, 1024))) for block in blocks)
    assert sizes[:, 0].sum() / (rows * 4096) >= 0.9


def test_a_packed_row_keeps_each_example_whole():
    examples = [example(1, 7, 1, 2), example(2, 6, 0, 1), example(3, 5, 2, 3)]
    row = build_row(examples, BUDGET, WINDOW_SAMPLES, TOKENS_PER_WINDOW)
    for segment, one in enumerate(examples, 1):
        at = row.segment_ids == segment
        np.testing.assert_array_equal(row.tokens[at], one.tokens)
        np.testing.assert_array_equal(row.positions[at], np.arange(len(one.tokens)))
        slots = row.audio_slot[at]
        np.testing.assert_array_equal(slots >= 0, one.audio_slot >= 0)
        heard = row.samples[slots[slots >= 0] // TOKENS_PER_WINDOW]
        assert (heard == segment).all(), "an example hears only its own windows"
    used = row.target_weights > 0
    assert used.sum() == 6
    np.testing.assert_array_equal(row.tokens[row.target_index[used] + 1], row.targets[used])
    same = row.segment_ids[row.target_index[used]] == row.segment_ids[row.target_index[used] + 1]
    assert same.all(), "no target is predicted from another example"
    assert (row.target_index[~used] == -1).all()
    assert row.window_mask.tolist() == [True, True, True]
    assert (row.segment_ids == 0).sum() == BUDGET.positions - sum(len(e.tokens) for e in examples)


def test_a_row_without_examples_teaches_nothing():
    row = build_row([], BUDGET, WINDOW_SAMPLES, TOKENS_PER_WINDOW)
    assert not row.target_weights.any() and not row.window_mask.any() and not row.segment_ids.any()
    assert row.tokens.shape == (BUDGET.positions,)
