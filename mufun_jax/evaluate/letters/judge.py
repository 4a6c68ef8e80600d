"""A judge reads an option out of a reply where rules may not: any chat model, if one is at hand.

The published MuCUE scores had a Qwen3-8B do it. Its answer "None" counted as wrong there, and is unreadable here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mufun_jax.evaluate.asking.choices import lettered
from mufun_jax.evaluate.letters.letter import read_letter
from mufun_jax.evaluate.letters.mention import bare


class Judge(Protocol):
    """Says which option a reply chooses."""

    def judge(self, question: str, options: Sequence[str], reply: str) -> int | None:
        """The place of the option in `options`, None where the reply chooses none, or several."""
        ...


@dataclass(frozen=True)
class ModelJudge:
    """Asks a model: `answer` gives its text for a user's turn. The text is read by the rules of `read_letter`."""

    answer: Callable[[str], str]

    def judge(self, question: str, options: Sequence[str], reply: str) -> int | None:
        if not reply.strip():
            return None  # without a reply there is nothing to read, and a model would read something into it
        return read_letter(self.answer(judge_prompt(question, options, reply)), options)


def judge_prompt(question: str, options: Sequence[str], reply: str) -> str:
    """What the judge is asked: to say what was chosen, not what is right."""
    none = "Unclear" if "none" in map(bare, options) else "None"
    return (
        "Below are a question with lettered options, and someone's reply to it. Say which option the reply chooses. Do "
        "not answer the question yourself, and do not judge whether the reply is right.\n\n"
        f"Question: {question}\nOptions:\n{lettered(options)}\n\nReply: {reply}\n\n"
        f"Answer with the letter of the chosen option and nothing else. If the reply chooses no option, or more than "
        f"one, answer {none}."
    )
