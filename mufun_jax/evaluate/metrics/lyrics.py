"""Lyrics: word and character error rate."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import iso639
import jiwer
import numpy as np
from alt_eval.tokenizer import LyricsTokenizer, tokens_as_words

from mufun_jax.errors import UserError
from mufun_jax.evaluate.metrics.measured import Measured, fraction

_UNCHANGED = jiwer.Compose([])


def measure_lyrics(replies: Sequence[str], references: Sequence[str], language: str = "en") -> Measured:
    """`wer` and `cer`: the errors (substitutions, deletions, insertions) of all replies by the words, or characters,
    of all references. Both may exceed 1. Lower is better; `wer` is the main figure.

    Words are those of alt-eval for the language (ISO 639), without case and punctuation; characters are those of the
    words, spaces between them left out, so that languages which write none are measured alike. A reference without a
    word (an instrumental) adds no words, and each word of its reply is an insertion. A reply without a word is counted
    as `unreadable`; all words of its reference are deletions.

    Raises:
        UserError: an unknown language, or no reference holds a word.
    """
    code, tokenizer = _code(language), LyricsTokenizer()
    sums = np.zeros((len(replies), 4))  # word errors, words, character errors, characters
    unreadable = 0
    for row, reply, reference in zip(sums, replies, references, strict=True):
        said, right = (_words(tokenizer, text, code) for text in (reply, reference))
        unreadable += not said
        row[:] = [_errors(said, right), len(right), _errors([*"".join(said)], [*"".join(right)]), len("".join(right))]
    total = sums.sum(axis=0)
    if not total[1]:
        raise UserError("no reference of the lyrics holds a word: there is no error rate; leave the task out")
    figures = {"wer": fraction(total), "cer": fraction(total, 2, 3), "unreadable": float(unreadable)}
    return Measured(figures, sums, partial(fraction, top=0, bottom=1))


def check_language(language: str) -> None:
    """Raises UserError for what is no language of ISO 639-1."""
    _code(language)


def _code(language: str) -> str:
    try:
        code = iso639.Language.match(language).part1
    except iso639.LanguageNotFoundError:
        code = None
    if not code:
        raise UserError(f"lyrics:{language}: is no language with a code of two letters; write for instance lyrics:de")
    return code


def _words(tokenizer: LyricsTokenizer, text: str, language: str) -> list[str]:
    return [token.text.lower() for token in tokens_as_words(tokenizer(text, language=language))]


def _errors(said: list[str], right: list[str]) -> int:
    """The edit distance. jiwer has no rate for an empty reference: there everything that is said is an insertion."""
    if not right:
        return len(said)
    # Lists of words, which jiwer's annotations do not know of, though it takes them where no transform is left.
    texts: Any = [right], [said]
    found = jiwer.process_words(*texts, reference_transform=_UNCHANGED, hypothesis_transform=_UNCHANGED)
    return found.substitutions + found.deletions + found.insertions
