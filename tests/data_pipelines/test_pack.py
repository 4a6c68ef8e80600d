import grain
import numpy as np
import pytest

from data_pipelines.encode import Budget, EncodedExample
from data_pipelines.pack import PackRows, build_row, pack_block

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


def random_examples(count: int, seed: int = 0) -> list[EncodedExample]:
    rng = np.random.default_rng(seed)
    sizes = np.stack([rng.integers(5, 20, count), rng.integers(0, 4, count), rng.integers(1, 4, count)], axis=1)
    return [example(i + 1, int(text), int(windows), int(targets)) for i, (text, windows, targets) in enumerate(sizes)]


def test_every_example_is_in_one_row_and_no_budget_is_broken():
    examples = random_examples(200)
    rows = pack_block(examples, BUDGET)
    assert sorted(id(e) for row in rows for e in row) == sorted(id(e) for e in examples)
    for row in rows:
        assert sum(len(e.tokens) for e in row) <= BUDGET.positions
        assert sum(len(e.samples) for e in row) <= BUDGET.windows
        assert sum(len(e.targets) for e in row) <= BUDGET.targets
    assert len(rows) < 0.8 * len(examples)


def test_each_budget_alone_limits_a_row():
    for one in (example(1, 25, 0, 1), example(1, 5, 2, 1), example(1, 5, 0, 4)):
        assert len(pack_block([one, one], BUDGET)) == 2
    small = example(1, 5, 1, 2)
    assert len(pack_block([small] * 3, BUDGET)) == 1


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


@pytest.mark.parametrize("taken", [0, 1, 2, 5, 11, 30])
def test_a_restored_stream_goes_on_with_the_very_next_row(taken):
    source = grain.MapDataset.source(random_examples(120)).to_iter_dataset()
    rows = PackRows(source, BUDGET, WINDOW_SAMPLES, TOKENS_PER_WINDOW)
    running = iter(rows)
    for _ in range(taken):
        next(running)
    restored = iter(rows)
    next(restored)
    restored.set_state(running.get_state())
    for ours, theirs in zip(running, restored, strict=True):
        np.testing.assert_array_equal(ours["batch"].tokens, theirs["batch"].tokens)
        assert ours["examples"] == theirs["examples"]


def test_counts_of_examples_and_dropped_windows():
    examples = random_examples(60)
    source = grain.MapDataset.source(examples).to_iter_dataset()
    elements = list(PackRows(source, BUDGET, WINDOW_SAMPLES, TOKENS_PER_WINDOW))
    assert sum(int(e["examples"]) for e in elements) == 60
    assert sum(int(e["dropped_windows"]) for e in elements) == sum(e.dropped_windows for e in examples)
