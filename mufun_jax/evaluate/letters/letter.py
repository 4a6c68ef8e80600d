"""The letter of the chosen option, read out of a free reply by rules.

What is replied is first made plain (`reply_text`): what stands before the end of the thinking is dropped, and so is
mark-up; full-width letters become letters. Then the first of these rules that says something decides:

1. A reply that is still thinking when it ends is unreadable, and so is one of more than 10,000 characters after it.
2. Marked answers, `<answer>…</answer>`, `\\boxed{…}`, or `{"answer": "…"}`, are read by the rules below, and nothing
   else in the reply is. Where two of them differ, or one is unreadable, so is the reply.
3. The reply is a letter and nothing else but brackets and punctuation: "B", "(b)", "B.". The letter wins over an option
   whose text is that same letter (the keys "A major", "C", "D minor", "A"): the question asks for a letter, and a set
   whose options are notes would otherwise be unreadable for every model that does as it is told. A letter that no
   option has is an option's text, or unreadable.
4. The reply is an option's text and nothing else: "disco", "Disco.". "D minor" is so no letter D.
5. The reply claims an option (`claim`): it says "the answer is", "option", "I choose", "B is correct", "答案是", or
   begins with the option and an end ("B. The song…", "B) disco"), or its last line is a letter alone. If all claims are
   for the same option, it is that. If they differ, the last one counts if it says that it is final ("final answer",
   "therefore", "so", a last line alone). Otherwise, and if an option is taken back without a new final claim ("B. Wait,
   C"), the reply is unreadable. So is a claim of two options ("A or B"), of a letter with another option's text ("B:
   metal"), and of a letter that no option has.
6. Without a claim, the options that are mentioned count (`mention`), by letter or by text as whole words, longer texts
   first; not those that are denied ("not B but C"), nor those in questions. Just one of them is the answer. An article
   is no letter, nor is the name of a note or a part ("in C", "D minor", "section B"), unless an option says so; a
   letter that may as well be a note of another option ("The key is C", with C major under A) makes it unreadable.

Where no rule gives an option, the reply is unreadable. Nothing is ever found by elimination ("not A, B or C"), and
nothing is guessed.
"""

import re
from collections.abc import Sequence

from mufun_jax.evaluate.letters.claim import Claim, claims
from mufun_jax.evaluate.letters.mention import Options, bare, mentions
from mufun_jax.evaluate.letters.reply_text import last_thought_removed, marked_parts, plain

_LONGEST_ANSWER = 10_000  # characters; a model that does not end repeats itself, and chooses nothing
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|on second thought|sorry|i mean|no,|hmm)\b|\bno,|不对|更正", re.IGNORECASE
)


def read_letter(reply: str, options: Sequence[str]) -> int | None:
    """The place of the chosen option, None where the reply is unreadable. The rules are in the module's docstring."""
    answer = last_thought_removed(reply)
    if answer is None or len(answer) > _LONGEST_ANSWER:
        return None
    known = Options(options)
    if parts := marked_parts(answer):
        read = {_read(plain(part), known) for part in parts}
        return read.pop() if len(read) == 1 else None
    return _read(plain(answer), known)


def _read(text: str, options: Options) -> int | None:
    """Rules 3 to 6, of a plain text."""
    whole = bare(text)
    if len(whole) == 1 and whole.isascii() and whole.isalpha():
        return _only(options.letter_places(whole, as_text=False))
    if whole in options.by_text:
        return _only(options.by_text[whole])
    if claimed := claims(text, options):
        return _settled(text, claimed, options)
    return _only(frozenset[int]().union(*(mention.places for mention in mentions(text, options))))


def _settled(text: str, claimed: Sequence[Claim], options: Options) -> int | None:
    last = claimed[-1]
    if last.is_final:
        return _only(last.places)
    if any(claim.places != last.places for claim in claimed):
        return None
    place = _only(last.places)
    taken_back = _TAKEN_BACK.search(text, last.at)
    if taken_back and any(m.places != last.places for m in mentions(text, options) if m.start > taken_back.start()):
        return None
    return place


def _only(places: frozenset[int]) -> int | None:
    return next(iter(places)) if len(places) == 1 else None
