"""Text that comes in pieces is the text of the whole, whatever the pieces."""

import random

import pytest

from mufun_jax.generate.text_stream import TextStream, goes_round
from mufun_jax.text.tokenizer import load_tokenizer

TEXT = "  Die Tonart ist f♯-Moll 🎵🎶, très lent…\n\n  第二楽章 is in 3/4.  "
TOKENIZER = load_tokenizer("nano")


def tokens_of(text: str) -> list[int]:
    return list(TOKENIZER._tokenizer.encode(text, add_special_tokens=False).ids)


def pieces_of(text: str, stop=(), seed=0) -> tuple[list[str], TextStream]:
    """What comes when tokens are pushed one, two or five at a time."""
    tokens, stream, pieces, at = tokens_of(text), TextStream(TOKENIZER.decode, stop), [], 0
    rng = random.Random(seed)
    while at < len(tokens) and not stream.stopped:
        at = min(len(tokens), at + rng.choice([1, 1, 2, 5]))
        pieces.append(stream.push(tokens[:at]))
    pieces.append(stream.end(tokens[:at]))
    return pieces, stream


@pytest.mark.parametrize("seed", range(20))
def test_the_pieces_are_the_text_in_whole_characters(seed):
    pieces, stream = pieces_of(TEXT, seed=seed)
    assert "".join(pieces) == stream.text == TEXT.strip()
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert sum(map(bool, pieces)) > 5


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "stop, left",
    [
        (["🎶"], "Die Tonart ist f♯-Moll 🎵"),
        (["\n\n"], "Die Tonart ist f♯-Moll 🎵🎶, très lent…"),
        (["3/5", "3/4"], TEXT[: TEXT.index("3/4")].strip()),
        (["lent", "Moll"], "Die Tonart ist f♯-"),
        (["nowhere", "3/4.!"], TEXT.strip()),
    ],
)
def test_a_stop_string_ends_it_and_nothing_of_it_gets_out(stop, left, seed):
    pieces, stream = pieces_of(TEXT, stop, seed)
    assert "".join(pieces) == stream.text == left
    assert stream.stopped == (left != TEXT.strip())


def test_what_is_no_whole_character_at_the_end_is_shown_as_such():
    tokens = tokens_of("a 🎵")[:-1]
    stream = TextStream(TOKENIZER.decode)
    assert stream.push(tokens) == "a"
    assert (stream.text, stream.end(tokens)) == ("a \N{REPLACEMENT CHARACTER}", " \N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize(
    "tokens, round_and_round",
    [
        ([7] * 64, True),
        ([1, 2, 3] + [7] * 63, False),
        ([1, 2, 3] + [7] * 64, True),
        ([5, 6] * 32, True),
        ([*range(20)] * 8, True),
        ([*range(20)] * 7, False),
        ([*range(33)] * 8, False),
        ([*range(200)], False),
        ([], False),
    ],
)
def test_a_loop_is_a_block_again_and_again(tokens, round_and_round):
    assert goes_round(tokens) == round_and_round
