"""The templates, character by character."""

import pytest

from mufun_jax.text.conversation import Turn, render

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def targets_of(rendered) -> list[str]:
    return [rendered.text[start:end] for start, end in rendered.target_spans]


def test_one_turn():
    rendered = render([Turn("<audio>\nWhat key?", "D major")])
    assert rendered.text == SYSTEM + " USER: <audio>\nWhat key? ASSISTANT: D major<|im_end|>"
    assert targets_of(rendered) == [" D major<|im_end|>"]


def test_two_turns_follow_one_another_without_a_space():
    rendered = render([Turn("<audio>\nWhat key?", "D major"), Turn("And tempo?", "fast")])
    assert rendered.text == (
        SYSTEM + " USER: <audio>\nWhat key? ASSISTANT: D major<|im_end|>USER: And tempo? ASSISTANT: fast<|im_end|>"
    )
    assert targets_of(rendered) == [" D major<|im_end|>", " fast<|im_end|>"]


@pytest.mark.parametrize("earlier", [[], [Turn("a", "b")]])
def test_an_inference_prompt_ends_without_a_space(earlier):
    rendered = render([*earlier, Turn("<audio>\nWhat key?")])
    before = "a ASSISTANT: b<|im_end|>USER: " if earlier else ""
    assert rendered.text == f"{SYSTEM} USER: {before}<audio>\nWhat key? ASSISTANT:"
    assert targets_of(rendered) == [" b<|im_end|>"] * len(earlier)


def test_the_training_text_begins_with_the_inference_prompt():
    question = "<audio>\n Which  instrument?\n"
    assert render([Turn(question, "oboe")]).text.startswith(render([Turn(question)]).text + " ")


def test_warmup_is_the_audio_and_the_answer():
    rendered = render([Turn("<audio>\nWrite down what you hear.", "C4 D4")], "warmup")
    assert rendered.text == "<audio>C4 D4\n"
    assert targets_of(rendered) == ["C4 D4\n"]


def test_warmup_without_an_answer_is_our_own_mistake():
    with pytest.raises(AssertionError):
        render([Turn("<audio>\nWhat key?")], "warmup")
