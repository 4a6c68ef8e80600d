"""Answers of a given form: JSON of a schema, a regular expression, or one of some choices.

`llguidance` says which tokens may come next. An answer begins with a space, as those that the model has learned.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
from jaxtyping import Int32

from mufun_jax.errors import UserError
from mufun_jax.generate.engine import Draft
from mufun_jax.text.tokenizer import Tokenizer

_COMPACT = {"whitespace_flexible": False}  # a space after a comma and a colon: space without end is JSON too
_LONGEST = 100_000  # characters of a schema or an expression; they come from strangers


@dataclass(frozen=True)
class Constraint:
    """The form of an answer, as a grammar."""

    grammar: str  # Lark's notation with `llguidance`'s additions

    @staticmethod
    def json(schema: dict[str, Any] | bool | str | None = None) -> "Constraint":
        """JSON that a schema allows; any object without one. Raises UserError for what is no schema."""
        if isinstance(schema, str):
            try:
                schema = json.loads(schema)
            except ValueError as error:
                raise UserError(f"the JSON schema is no JSON: {error}") from None
        if schema is None:
            schema = {"type": "object"}
        if not isinstance(schema, dict):
            raise UserError(f"the JSON schema is {schema!r}; it must be an object, for instance {{'type': 'object'}}")
        text = _short(json.dumps({**schema, "x-guidance": _COMPACT}), "JSON schema")
        return Constraint(f'start: " " answer\nanswer: %json {text}\n')

    @staticmethod
    def regex(pattern: str) -> "Constraint":
        """What a regular expression matches as a whole. Raises UserError for none."""
        escaped = _short(pattern, "regular expression").replace("/", r"\/").replace("\n", r"\n")
        if not pattern:
            raise UserError("the regular expression is empty; write one, for instance '[A-D]'")
        return Constraint(f'start: " " answer\nanswer: /{escaped}/\n')

    @staticmethod
    def choices(options: Sequence[str]) -> "Constraint":
        """One of some texts. Raises UserError for none."""
        if isinstance(options, str) or not options or not all(isinstance(one, str) and one for one in options):
            raise UserError(f"choices {options!r}: give a list of answers, for instance ['major', 'minor']")
        alternatives = " | ".join(json.dumps(_short(option, "choice"), ensure_ascii=False) for option in options)
        return Constraint(f'start: " " answer\nanswer: {alternatives}\n')


class Grammars:
    """Makes matchers of constraints over a tokenizer's tokens."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int):
        """`vocabulary`: how many logits the model has, which may be more than the tokenizer has tokens."""
        self._tokenizer = tokenizer.for_grammars(vocabulary)

    def matchers(self, constraint: Constraint, rows: int) -> "Matchers":
        """For a batch. Raises UserError for a grammar that is wrong, too large, or that cannot be met."""
        first = llguidance.LLMatcher(self._tokenizer, constraint.grammar, log_level=0)
        if first.is_error():
            raise UserError(f"the answer's form cannot be used: {' '.join(first.get_error().split())[:300]}")
        return Matchers([first, *(first.deep_copy() for _ in range(rows - 1))], self._tokenizer.vocab_size)


class Matchers:
    """Follows the answers of a batch, a token at a time."""

    def __init__(self, matchers: list[llguidance.LLMatcher], vocabulary: int):
        self._matchers = matchers
        self._mask = llguidance.numpy.allocate_token_bitmask(len(matchers), vocabulary)
        self._read = 0

    def allowed(self, drafts: Sequence[Draft]) -> Int32[np.ndarray, "R words"]:
        """The tokens that may come next, as `decode.advance` takes them."""
        for row, (matcher, draft) in enumerate(zip(self._matchers, drafts, strict=True)):
            if draft.done:
                self._mask[row] = -1  # all of them: what a row says after its end is not read
                continue
            matcher.consume_tokens(draft.tokens[self._read :].tolist())
            llguidance.numpy.fill_next_token_bitmask(matcher, self._mask, row)
            if matcher.is_error():
                raise UserError(f"the answer's form cannot be followed: {' '.join(matcher.get_error().split())[:300]}")
        self._read = len(drafts[0].tokens)
        return self._mask.copy()


def _short(text: str, what: str) -> str:
    if len(text) > _LONGEST:
        raise UserError(f"the {what} has {len(text)} characters; at most {_LONGEST} are taken")
    return text
