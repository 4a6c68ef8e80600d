"""Conversations as text: the templates of training, warmup and inference, and which characters are targets.

Training, with one space after the system sentence and after each question, and none before a further turn:

    {SYSTEM} USER: {q} ASSISTANT: {a}<|im_end|>USER: {q2} ASSISTANT: {a2}<|im_end|>
                                ^^^^^^^^^^^^^                          ^^^^^^^^^^^^^ the loss is on these

Inference is the same, ending `ASSISTANT:` with no space after it. Warmup is `<audio>{a}\\n` with the loss on
everything after the audio, and no end-of-turn token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

AUDIO_PLACEHOLDER = "<audio>"
END_OF_TURN = "<|im_end|>"
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class Turn:
    """A question and its answer; None where the model is to answer."""

    question: str
    answer: str | None = None


@dataclass(frozen=True)
class Rendered:
    """Text of a whole conversation and the character ranges [start, end) that are targets."""

    text: str
    target_spans: tuple[tuple[int, int], ...]


def render(turns: Sequence[Turn], template: Literal["train", "warmup"] = "train") -> Rendered:
    """A conversation as the model reads it. A last turn without an answer makes an inference prompt."""
    return _render_warmup(turns) if template == "warmup" else _render_chat(turns)


def _render_chat(turns: Sequence[Turn]) -> Rendered:
    text, spans = SYSTEM + " ", []
    for turn in turns:
        text += f"USER: {turn.question} ASSISTANT:"
        if turn.answer is not None:
            start = len(text)
            text += f" {turn.answer}{END_OF_TURN}"
            spans.append((start, len(text)))
    return Rendered(text, tuple(spans))


def _render_warmup(turns: Sequence[Turn]) -> Rendered:
    assert turns[0].answer is not None, "warmup trains on answers"
    text = f"{AUDIO_PLACEHOLDER}{turns[0].answer}\n"
    return Rendered(text, ((len(AUDIO_PLACEHOLDER), len(text)),))
