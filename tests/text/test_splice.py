"""The splice on the host: order, slots, and the audio that a row has no room for."""

import pytest

from mufun_jax.text.splice import splice, windows_that_fit
from mufun_jax.text.tokenizer import TextPiece


def piece(*ids: int, target: bool = False) -> TextPiece:
    return TextPiece(ids, (target,) * len(ids))


def test_all_windows_of_a_file_stand_between_its_pieces():
    spliced = splice([piece(5, 6), piece(7), piece(8, 9, target=True)], [2, 1], tokens_per_window=3)
    text = [5, 6, None, None, None, None, None, None, 7, None, None, None, 8, 9]
    assert [None if slot >= 0 else token for token, slot in zip(*_lists(spliced), strict=True)] == text
    assert spliced.audio_slot.tolist() == [-1, -1, 0, 1, 2, 3, 4, 5, -1, 6, 7, 8, -1, -1]
    assert spliced.is_target.tolist() == [False] * 12 + [True, True]
    assert (spliced.tokens.dtype, spliced.audio_slot.dtype, spliced.is_target.dtype) == ("int32", "int32", "bool")


def test_text_alone_and_audio_alone():
    spliced = splice([piece(1, 2)], [], 3)
    assert (spliced.tokens.tolist(), spliced.audio_slot.tolist()) == ([1, 2], [-1, -1])
    spliced = splice([piece(), piece()], [1], 3)
    assert spliced.audio_slot.tolist() == [0, 1, 2]
    assert not spliced.is_target.any()


@pytest.mark.parametrize("files", [0, 2])
def test_files_and_placeholders_must_be_as_many(files):
    with pytest.raises(ValueError, match=f"1 <audio> placeholders but {files} files"):
        splice([piece(1), piece(2)], [1] * files, 3)


@pytest.mark.parametrize(
    "windows, room, kept",
    [
        ([], 0, []),
        ([1], 1, [1]),
        ([13], 13, [13]),
        ([13], 12, [12]),
        ([5], 1, [1]),
        ([3, 4], 7, [3, 4]),
        ([3, 4], 6, [3, 3]),
        ([3, 4], 4, [3, 1]),
        ([3, 4], 3, [2, 1]),
        ([3, 4], 2, [1, 1]),
        ([2, 1, 5, 3], 7, [2, 1, 3, 1]),
        ([2, 1, 5, 3], 5, [2, 1, 1, 1]),
        ([2, 1, 5, 3], 4, [1, 1, 1, 1]),
    ],
)
@pytest.mark.parametrize("spare", [0, 9], ids=["to the position", "part of a window over"])
def test_the_last_file_is_shortened_first_by_whole_windows(windows, room, kept, spare):
    assert windows_that_fit(windows, 100, 10, 100 + 10 * room + spare) == kept


@pytest.mark.parametrize("windows, positions", [([1], 109), ([4, 4], 119), ([1], 50)])
def test_text_and_one_window_a_file_must_fit(windows, positions):
    with pytest.raises(
        ValueError, match=rf"100 tokens .* {len(windows)} windows .* 10 tokens .* {positions} positions"
    ):
        windows_that_fit(windows, 100, 10, positions)


def test_text_alone_must_fit_too():
    with pytest.raises(ValueError, match="100 tokens of text"):
        windows_that_fit([], 100, 10, 99)


def _lists(spliced):
    return spliced.tokens.tolist(), spliced.audio_slot.tolist()
