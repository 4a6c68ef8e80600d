"""Where a reply mentions options, by letter or by text, and which mentions are denied."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mufun_jax.evaluate.benchmark_question import LETTERS
from mufun_jax.evaluate.letters.reply_text import plain

_ENDS = " \t\r\n.,;:!?\"'()[]{}。,、"  # of no weight around a letter or an option's text

# What follows a capital A that is a letter, and not an article.
_AFTER_LETTER = (
    "is|are|was|because|since|as|and|or|but|due|based|would|seems|fits|matches|for|which|with|sounds|appears|looks|than"
)
# What follows the name of a note, of a key or of a part of a piece, and stands before it.
_QUALITY = (
    "major|minor|maj|min|dim|diminished|aug|augmented|sus|dorian|phrygian|lydian|mixolydian|aeolian|ionian|locrian"
)
_AFTER_NOTE = rf"{_QUALITY}|sharp|flat|natural|chords?|notes?|key|scale|strings?|section|part|theme"
_BEFORE_NOTE = "sections?|parts?|themes?|plan|vitamin|strings?|notes?|chords?|key of|key|in|tuned to"

_W = r"[^\W\u3040-\u9fff]"  # of a word; Chinese and Japanese are written without spaces, and end none
_LETTER = re.compile(rf"(?<!{_W})(?<![#'.\-])(?<![Nn]/)(?P<letter>[A-Za-z])(?!{_W})(?![#'])(?!-\w)(?!\.\w)")
_NOTE_BEFORE = re.compile(rf"\b(?:{_BEFORE_NOTE})\s+$", re.IGNORECASE)
_NOTE_AFTER = re.compile(rf"\s+(?:{_AFTER_NOTE})\b", re.IGNORECASE)
_LETTER_AFTER = re.compile(rf"\s+(?:{_AFTER_LETTER})\b")
_WORD_AFTER = re.compile(rf"\s+(?:(?![A-Z]\b)[^\W\d_]|[A-Z]\s+(?:{_AFTER_NOTE})\b)")  # "A B" are two letters

_DENIALS = (
    r"\b(?:not|cannot|no(?! doubt)|never|neither|nor|without|rather than|instead of|unlike|except|other than|exclud\w+|"
    r"eliminat\w+|rul(?:e|es|ed|ing) out)\b|n't\b|不是|不选|并非|而非|排除"
)
_DENIED_BEFORE = re.compile(rf"(?:{_DENIALS})(?P<between>[^.,;:!?\n。]*)$", re.IGNORECASE)
_DENIAL_ENDS = re.compile(r"\b(?:but|so|because|therefore|it is|it's|which)\b|而是", re.IGNORECASE)
_DENIED_AFTER = re.compile(
    r"[)\]\"'.:]*\s*(?:(?:is|are|was|were|does|do|did|would|can|could|seems?)(?:\s+be)?(?:\s+(?:also|clearly|definitely))?"
    r"\s*(?:n't|not\b|wrong\b|incorrect\b|false\b|out\b|unlikely\b|ruled out\b|eliminated\b|too\b)|cannot\b|can't\b"
    r"|(?:是)?(?:错误|错的|不对|不正确|不是))",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?\n。]")
COORDINATION = re.compile(
    r"[)\]\"']*\s*(?:,|;|/|&|、|\bor\b|\band\b|\bnor\b|或者?|和)+\s*(?:\b(?:or|and|nor)\b\s*)?[(\[\"']*"
)


@dataclass(frozen=True)
class Mention:
    """`places` are the options that it can mean: none for a letter without an option, two for what is ambiguous."""

    start: int
    end: int
    places: frozenset[int]
    is_letter: bool


class Options:
    """The options of a question, as they are looked for in replies."""

    def __init__(self, options: Sequence[str]):
        assert 0 < len(options) <= len(LETTERS)
        self.count = len(options)
        by_text: dict[str, set[int]] = {}
        for place, option in enumerate(options):
            by_text.setdefault(bare(option), set()).add(place)
        by_text.pop("", None)
        self.by_text = {text: frozenset(places) for text, places in by_text.items()}
        # "The key is C" may mean C major, which may be another option than that of the letter C.
        self._by_note: dict[str, frozenset[int]] = {}
        for text, places in self.by_text.items():
            if re.match(rf"[a-g] (?:{_QUALITY})\b", text):
                self._by_note[text[0]] = self._by_note.get(text[0], frozenset()) | places
        # Longest first, so that "D minor" is not read as "minor". Single letters are looked for as letters.
        words = sorted((text for text in by_text if not _is_letter(text)), key=len, reverse=True)
        self._texts = re.compile("|".join(map(_bounded, words)), re.IGNORECASE) if words else None

    def letter_places(self, letter: str, *, as_text: bool) -> frozenset[int]:
        """The option of a letter; where there is none, the option whose text is that letter.

        With `as_text` all that the letter can mean in prose: its option, and those of a note by that name.
        """
        place = LETTERS.index(letter.upper())
        own = frozenset({place} if place < self.count else ())
        named = self.by_text.get(letter.lower(), frozenset())
        if as_text:
            return own | named | self._by_note.get(letter.lower(), frozenset())
        return own or named

    def text_at(self, text: str, at: int) -> Mention | None:
        """The longest option's text (of more than a letter) that begins at a place."""
        found = self._texts.match(text, at) if self._texts else None
        return self._mention(found) if found else None

    def named_by(self, text: str, at: int) -> Mention | None:
        """The option whose text begins at a place, be it a single letter."""
        letter = _LETTER.match(text, at)
        if (
            letter is not None
            and (places := self.by_text.get(letter[0].lower()))
            and not _WORD_AFTER.match(text, at + 1)
        ):
            return Mention(at, at + 1, places, False)
        return self.text_at(text, at)

    def text_mentions(self, text: str) -> list[Mention]:
        """All options' texts (of more than a letter), the longest where several begin."""
        return [self._mention(found) for found in self._texts.finditer(text)] if self._texts else []

    def _mention(self, found: re.Match[str]) -> Mention:
        return Mention(found.start(), found.end(), self.by_text[bare(found[0])], False)


def bare(text: str) -> str:
    """A text for comparison: plain, small letters, single spaces, no punctuation at its ends."""
    return " ".join(plain(text).strip(_ENDS).casefold().split())


def _is_letter(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text.isalpha()


def _bounded(text: str) -> str:
    """A pattern for an option's text as whole words: 12 is neither in 120 nor in 12.5, and C major not in C major7."""
    words = r"\s+".join(map(re.escape, text.split()))
    before = rf"(?<!{_W})(?<!#)(?<!\d[.,:/–-])" if re.match(f"{_W}|#", text) else ""
    after = rf"(?!{_W})(?!#)(?![.,:/–-]\d)" if re.match(f"{_W}|#", text[-1]) else ""
    return f"{before}{words}{after}"


def letter_at(text: str, at: int, options: Options) -> Mention | None:
    """A letter of an option that begins at a place. A small one must be followed by an end: `b.`, `b)`."""
    found = _LETTER.match(text, at)
    if found is None:
        return None
    if found["letter"].islower():
        is_letter = not text[found.end() :].strip() or text[found.end()] in ").:]\n"
    else:
        is_letter = _is_label(text, found, options)
    return (
        Mention(found.start(), found.end(), options.letter_places(found["letter"], as_text=False), True)
        if is_letter
        else None
    )


def _is_label(text: str, found: re.Match[str], options: Options) -> bool:
    """Whether a capital stands for an option, and is no article, note, key, or part of a piece."""
    start, end = found.span()
    if text[start - 1 : start] in {"(", "["} and text[end : end + 1] in {")", "]"}:
        return True
    if _NOTE_BEFORE.search(text[max(0, start - 20) : start]):
        return False
    own = options.text_at(text, end + 1)
    if own is not None and own.places <= options.letter_places(found["letter"], as_text=False):
        # "B disco", but "A disco song" is no answer by letter even where A is disco: the text is the same option.
        return True
    if _NOTE_AFTER.match(text, end):
        return False
    if found["letter"] in "AI":
        return _WORD_AFTER.match(text, end) is None or _LETTER_AFTER.match(text, end) is not None
    return True


def mentions(text: str, options: Options) -> list[Mention]:
    """All that is mentioned and not denied, in order. In prose, a capital can mean an option by its text as well."""
    found = options.text_mentions(text)
    taken = [(mention.start, mention.end) for mention in found]
    for match in _LETTER.finditer(text):
        inside = any(start <= match.start() < end for start, end in taken)
        if inside or match["letter"] == "I" or not (match["letter"].isupper() or _in_brackets(text, match)):
            continue
        note = options.by_text.get(match["letter"].lower())
        if _is_label(text, match, options):
            places = options.letter_places(match["letter"], as_text=True)
            found.append(Mention(match.start(), match.end(), places, True))
        elif note is not None and match["letter"] != "A":
            found.append(Mention(match.start(), match.end(), note, False))
    found.sort(key=lambda mention: mention.start)
    return _not_denied(text, found)


def _in_brackets(text: str, match: re.Match[str]) -> bool:
    return text[match.start() - 1 : match.start()] in {"(", "["} and text[match.end() : match.end() + 1] in {")", "]"}


def _not_denied(text: str, found: Sequence[Mention]) -> list[Mention]:
    """Denial reaches over "or", "nor", "and" and commas: "not A or B" denies both, "not B but C" only B."""
    kept, before = [], None
    for mention in found:
        chained = before is not None and COORDINATION.fullmatch(text, before.end, mention.start) is not None
        if denied_before(text, mention.start) or (chained and before not in kept):
            pass
        elif not denied_after(text, mention.end) and not in_question(text, mention.end):
            kept.append(mention)
        before = mention
    return kept


def denied_before(text: str, at: int) -> bool:
    """Whether a denial stands before a place, in the same part of the sentence, at most six words away."""
    found = _DENIED_BEFORE.search(text, max(0, at - 80), at)
    if found is None:
        return False
    between = found["between"]
    return len(between.split()) <= 6 and _DENIAL_ENDS.search(between) is None


def denied_after(text: str, at: int) -> bool:
    """Whether a denial follows: "B is wrong"."""
    return _DENIED_AFTER.match(text, at) is not None


def in_question(text: str, at: int) -> bool:
    """Whether the sentence ends in a question mark."""
    end = _SENTENCE_END.search(text, at)
    return end is not None and end[0] == "?"
