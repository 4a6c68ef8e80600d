"""Tokenizers: special tokens, pieces, the loss mask token by token, folders of both kinds."""

from pathlib import Path

import pytest

from data_pipelines import nano_tokenizer
from mufun_jax.errors import CheckpointError
from mufun_jax.text.conversation import SYSTEM, Rendered, Turn, render
from mufun_jax.text.tokenizer import NANO_TOKENIZER, load_tokenizer
from tests.qwen_tokenizer import as_qwen, write_qwen_tokenizer

NANO = load_tokenizer("nano")


def ids_of(text: str, tokenizer=NANO) -> list[int]:
    (piece,) = tokenizer.encode_pieces(Rendered(text, ()))
    return list(piece.ids)


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory) -> Path:
    return write_qwen_tokenizer(tmp_path_factory.mktemp("qwen"))


def test_special_tokens_are_single_and_in_qwens_order():
    assert [ids_of(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [[0], [1], [2]]
    assert (NANO.padding, NANO.end_of_turn, NANO.size) == (0, 2, 512)
    assert ids_of("a<|im_end|>b") == [*ids_of("a"), 2, *ids_of("b")]
    assert NANO.decode([*ids_of("C major"), 2, 0]) == "C major"


@pytest.mark.parametrize("text", ["What is this?", "héllo, wörld 音楽 🎵", " C#4  Bb3\n\t", "1234", "", "<|im_start|"])
def test_text_survives(text):
    assert NANO.decode(ids_of(text)) == text


@pytest.mark.parametrize(
    "text, pieces",
    [
        ("no audio", ["no audio"]),
        ("<audio>", ["", ""]),
        ("a<audio>\nb<audio>c", ["a", "\nb", "c"]),
        ("<audio><audio>", ["", "", ""]),
        ("<Audio> < audio> <audio", ["<Audio> < audio> <audio"]),
        ("a<|im_end|>USER: b", ["a<|im_end|>USER: b"]),
    ],
)
def test_pieces_are_split_at_audio_only(text, pieces):
    encoded = NANO.encode_pieces(Rendered(text, ()))
    assert [list(piece.ids) for piece in encoded] == [ids_of(piece) for piece in pieces]
    assert all(len(piece.ids) == len(piece.is_target) and not any(piece.is_target) for piece in encoded)


@pytest.mark.parametrize(
    "turns",
    [
        [Turn("<audio>\nWhat key?", "D major")],
        [Turn("What key?", " two  spaces")],
        [Turn("<audio>\nWhat key?", "D major"), Turn("And tempo?", "120, fast\n")],
        [Turn("<audio> and <audio>", "first"), Turn("<audio>\nwhich?", "música 音")],
    ],
    ids=["one", "text only", "two", "three files"],
)
@pytest.mark.parametrize("kind", ["nano", "qwen"])
def test_the_loss_mask_token_by_token(turns, kind, qwen_folder):
    """Independently: the number of tokens of the text up to each border says where a target begins and ends."""
    tokenizer = NANO if kind == "nano" else load_tokenizer(qwen_folder)
    pieces = tokenizer.encode_pieces(render(turns))
    text = SYSTEM + " "
    borders = []
    for turn in turns:
        text += f"USER: {turn.question} ASSISTANT:"
        begin = text
        text += f" {turn.answer}<|im_end|>"
        borders.append((_count(begin, tokenizer), _count(text, tokenizer)))
    mask = [target for piece in pieces for target in piece.is_target]
    expected = [any(begin <= number < end for begin, end in borders) for number in range(len(mask))]
    assert mask == expected
    answers = [number for piece in pieces for number, t in zip(piece.ids, piece.is_target, strict=True) if t]
    assert answers == [number for turn in turns for number in ids_of(f" {turn.answer}<|im_end|>", tokenizer)]


def test_the_warmup_mask_begins_after_the_audio():
    before, after = NANO.encode_pieces(render([Turn("<audio>", "C4 D4")], "warmup"))
    assert before.ids == () and list(after.ids) == ids_of("C4 D4\n") and all(after.is_target)


def test_an_answer_that_holds_a_placeholder_is_split_there_and_stays_a_target():
    before, after = NANO.encode_pieces(render([Turn("q", "a<audio>b")]))
    assert list(before.is_target) == [False] * _count(f"{SYSTEM} USER: q ASSISTANT:", NANO) + [True] * len(ids_of(" a"))
    assert list(after.ids) == ids_of("b<|im_end|>") and all(after.is_target)


def test_a_token_across_the_border_of_an_answer_is_our_own_mistake():
    text = "tempo"
    assert len(ids_of(text)) < len(text), "some token has two characters"
    with pytest.raises(AssertionError, match="crosses"):
        for start in range(1, len(text)):
            NANO.encode_pieces(Rendered(text, ((start, len(text)),)))


def test_a_folder_of_vocabulary_and_merges_gives_the_same_ids(qwen_folder):
    qwen = load_tokenizer(qwen_folder)
    assert (qwen.padding, qwen.end_of_turn, qwen.size) == (509, 511, 512)
    for text in [*list(nano_tokenizer.corpus_text())[::37], "a<|im_end|>USER: 12", SYSTEM, "música, 音楽"]:
        assert ids_of(text, qwen) == [as_qwen(i) for i in ids_of(text)]
        assert qwen.decode(ids_of(text, qwen)) == text.replace("<|im_end|>", "")


@pytest.mark.parametrize("kind", ["nano", "qwen"])
def test_a_saved_tokenizer_is_the_same(kind, qwen_folder, tmp_path):
    tokenizer = NANO if kind == "nano" else load_tokenizer(qwen_folder)
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    text = render([Turn("<audio>\nWhat key?", "D major, 120 音")])
    assert again.encode_pieces(text) == tokenizer.encode_pieces(text)
    assert (again.end_of_turn, again.padding, again.size) == (tokenizer.end_of_turn, tokenizer.padding, tokenizer.size)


@pytest.mark.parametrize("token", ["<|im_end|>", "<|endoftext|>"])
def test_a_folder_without_a_special_token_is_an_error(token, tmp_path):
    text = (NANO_TOKENIZER / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace(token, "<|other|>"))
    with pytest.raises(CheckpointError) as error:
        load_tokenizer(tmp_path)
    assert token in str(error.value) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("files", [[], ["vocab.json"], ["merges.txt"]])
def test_a_folder_without_tokenizer_files_is_an_error(files, qwen_folder, tmp_path):
    for file in files:
        (tmp_path / file).write_bytes((qwen_folder / file).read_bytes())
    with pytest.raises(CheckpointError) as error:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(error.value) and "merges.txt" in str(error.value)


def test_the_shipped_tokenizer_is_what_its_program_makes(tmp_path):
    nano_tokenizer.main(str(tmp_path / "made"))
    made = (tmp_path / "made" / "tokenizer.json").read_bytes()
    assert made == (NANO_TOKENIZER / "tokenizer.json").read_bytes()


def _count(text: str, tokenizer) -> int:
    return sum(len(ids_of(piece, tokenizer)) for piece in text.split("<audio>"))
