"""How likely given answers are: of many questions at once, whose text is run once for all answers to each."""

from collections.abc import Sequence

from mufun_jax.errors import UserError
from mufun_jax.generate.answer import OptionScore
from mufun_jax.generate.engine import Engine
from mufun_jax.generate.prompt import Listener
from mufun_jax.generate.question import Question
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER, Turn, render
from mufun_jax.text.tokenizer import Tokenizer


def score_questions(
    engine: Engine,
    listener: Listener,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    options: Sequence[Sequence[str]],
) -> list[list[OptionScore]]:
    """The score of each option of each question as its whole answer, in the order given.

    Raises UserError where options are no list of texts, have `<audio>` in them, or a question is asked in passes.
    """
    answers: list[list[tuple[int, ...]]] = []
    for question, some in zip(questions, options, strict=True):
        if question.long == "window":
            raise UserError("options are scored in one pass; choose a part of the song, or long='all'")
        if isinstance(some, str) or not some or not all(isinstance(option, str) for option in some):
            raise UserError(f"options {some!r}: give a list of answers, for instance ['major', 'minor']")
        answers.append([answer_tokens(tokenizer, question, option) for option in some])
    prompts = [listener.prompt(question) for question in questions]
    return [
        [OptionScore(option, float(row.sum()), len(row)) for option, row in zip(some, rows, strict=True)]
        for some, rows in zip(options, engine.score(prompts, answers), strict=True)
    ]


def answer_tokens(tokenizer: Tokenizer, question: Question, answer: str) -> tuple[int, ...]:
    """The tokens of an answer as training has them: its text and the end of the turn."""
    if AUDIO_PLACEHOLDER in answer:
        raise UserError(f"the option {answer!r} has {AUDIO_PLACEHOLDER} in it; songs stand in the prompt only")
    last = tokenizer.encode_pieces(render([*question.history, Turn(question.prompt, answer)]))[-1]
    return tuple(token for token, is_target in zip(last.ids, last.is_target, strict=True) if is_target)
