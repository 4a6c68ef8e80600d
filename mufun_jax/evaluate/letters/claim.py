"""Where a reply says which option it chooses: "The answer is B", "I'd go with disco", "B. disco", a last line "(B)"."""

import re
from dataclasses import dataclass

from mufun_jax.evaluate.benchmark_question import LETTERS
from mufun_jax.evaluate.letters.mention import (
    COORDINATION,
    Mention,
    Options,
    denied_after,
    denied_before,
    in_question,
    letter_at,
)

_IS = (
    r"(?:\s+(?:would|should|must|will|to|could|may|might))?"
    r"\s*(?:\bis\b|\bare\b|\bwas\b|\bbe\b|\bwould\b|'s\b|[:=]|[-=]>|→|[-–—])"
)
_TOLD = re.compile(
    rf"\b(?:answer|choice|option|selection|pick|response|letter|guess|conclusion)\b"
    rf"(?:\s+(?:choice|option|letter|here|to (?:the|this) question|for (?:the|this) question))*{_IS}",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\b(?:answer|choice|option)\s+(?=[(\[\"']*[A-Za-z]\b)", re.IGNORECASE)
_CHOSEN = re.compile(
    r"\b(?:I|we)(?:'d|'ll|\s+would|\s+will|\s+have\s+to|\s+am\s+going\s+to)?\s+"
    r"(?:choose|chose|pick|picked|select|selected|go\s+(?:with|for)|say|answer|conclude)\b|\blet's\s+go\s+with\b",
    re.IGNORECASE,
)
_IT_IS = re.compile(
    r"\b(?:it|this|that)(?:'s|\s+is|\s+(?:must|should|would)\s+be)\s+(?=[(\[\"']*[A-Z]\b)", re.IGNORECASE
)
_CHINESE = re.compile(r"(?:(?:正确)?答案|(?:正确)?选项|选择|应该?选|我选|故选|选)\s*(?:应该是|应为|应该为|是|为|:)*\s*")
_SAYS_SO = re.compile(
    r"[)\]\"'.:]*\s*(?:is|seems|would be|appears to be|must be|should be|sounds|looks|fits|matches)\s+"
    r"(?:to be\s+)?(?:the\s+)?(?:most\s+(?:likely\s+)?|only\s+|clearly\s+|definitely\s+)?(?:final\s+)?"
    r"(?:correct|right|best|answer|accurate|appropriate|closest|suitable|likely|plausible|true)\b",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:[\s\"'(\[:<>]|\b(?:definitely|clearly|probably|likely|most|certainly|simply|just|indeed|[Oo]ption|choice|letter|"
    r"answer|that|it|is|it's|the|an?|both|either|[Tt]he|[Oo]f|as)\b(?!\s*[.)\]]))*"
)
_LABEL_ENDS = re.compile(r"[)\]\"']*\s*[.):,;!\]–—-]|[)\]\"']*\s*\n|\s+(?:because|since|as)\b")
_BEFORE_TEXT = re.compile(r"[)\]\"']*[\s.:)\-–—(\"']+")
_VERB = re.compile(r"[)\]\"']*\s+(?:is|are|was|were|has|have|does|do|would|seems|sounds|can|could)\b", re.IGNORECASE)
_FINAL_WORD = re.compile(
    r"\b(?:final|finally|therefore|thus|hence|so|in conclusion|overall|conclusion|to sum up)\b|所以|因此|故|综上|最终",
    re.IGNORECASE,
)
_LISTED = re.compile(r"(?<!\w)(?P<letter>[A-Za-z])[.):]+\s*")
_SENTENCE_BEGINS = re.compile(r"(?:\A|[.!?;\n])\s*[(\[]*$")
_STOP = re.compile(r"\s*[.\n]\s*|\s*\Z")
_LINE = re.compile(r"[^\n]+")


@dataclass(frozen=True)
class Claim:
    """`places` has two options where the reply leaves it open ("A or B"), or contradicts itself ("B: metal").

    It is empty for a letter that has no option. `is_final` where it says that it is the last word.
    """

    at: int
    places: frozenset[int]
    is_final: bool


def claims(text: str, options: Options) -> list[Claim]:
    """All claims of a reply, in order. Denied ones, and those in questions, are none."""
    found: dict[int, Claim] = {}
    for pattern in (_TOLD, _NAMED, _CHOSEN, _IT_IS, _CHINESE):
        for match in pattern.finditer(text):
            if denied_before(text, match.start()):
                continue
            claim = _claim_at(text, match.start(), match.end(), options, letters_only=pattern in (_NAMED, _IT_IS))
            if claim is not None:
                found.setdefault(claim.at, claim)
    echo = _repeats_the_options(text, options)
    for claim in (*_said_of(text, options), *_at_the_ends(text, options, echo)):
        found.setdefault(claim.at, claim)
    return [claim for _, claim in sorted(found.items())]


def _claim_at(text: str, start: int, at: int, options: Options, *, letters_only: bool = False) -> Claim | None:
    """The claim whose words begin at `start` and whose option is looked for from `at` on."""
    filler = _FILLER.match(text, at)
    at = at if filler is None else filler.end()
    target = None if letters_only else options.text_at(text, at)
    target = target or letter_at(text, at, options)
    if target is None:
        return None
    places, end = _whole_target(text, target, options)
    if letters_only and _VERB.match(text, end) and not _SAYS_SO.match(text, end):
        return None  # "option A is too slow" says something of it, and does not choose it
    if letters_only and target.is_letter and text[start : start + 2].lower() in {"it", "th"}:
        # "It is C" may mean the note C: the options with that text count too.
        places |= options.letter_places(text[target.start], as_text=True)
    if denied_after(text, end) or in_question(text, end):
        return None
    return Claim(target.start, places, _FINAL_WORD.search(text, max(0, start - 25), target.start) is not None)


def _whole_target(text: str, target: Mention, options: Options) -> tuple[frozenset[int], int]:
    """All options that are named together: a letter with its text, "A or B", "A, B and C"."""
    places, end = target.places, target.end
    if target.is_letter:
        gap = _BEFORE_TEXT.match(text, end)
        named = options.named_by(text, gap.end()) if gap else None
        if named is not None:
            places, end = (named.places & places or places | named.places), named.end
    for _ in range(len(LETTERS)):  # more are not named together, and a reply may go on without end
        joint = COORDINATION.match(text, end)
        if joint is None:
            break
        following = options.text_at(text, joint.end()) or letter_at(text, joint.end(), options)
        if following is None or _VERB.match(text, following.end):
            break
        places, end = places | following.places, following.end
    return places, end


def _said_of(text: str, options: Options) -> list[Claim]:
    """ "B is the best answer", "Disco is correct"."""
    found = []
    for match in re.finditer(r"(?<!\w)\w", text):
        target = options.text_at(text, match.start()) or letter_at(text, match.start(), options)
        if target is None or not _SAYS_SO.match(text, (end := _whole_target(text, target, options)[1])):
            continue
        places, _ = _whole_target(text, target, options)
        if not denied_before(text, target.start) and not in_question(text, end):
            found.append(Claim(target.start, places, False))
    return found


def _at_the_ends(text: str, options: Options, echo: bool) -> list[Claim]:
    """The reply begins with an option and an end ("B. The song…", "Disco, because"), or its last line is one alone."""
    found = []
    if not echo:
        first = re.match(r"[(\[\"']*", text)
        assert first is not None
        target = options.text_at(text, first.end()) or letter_at(text, first.end(), options)
        if target is not None and _LABEL_ENDS.match(text, target.end):
            places, end = _whole_target(text, target, options)
            if (full_stop := _STOP.match(text, end)) and (other := options.text_at(text, full_stop.end())):
                places |= other.places if _STOP.match(text, other.end) else frozenset()  # "disco. metal."
            if not denied_after(text, end):
                found.append(Claim(target.start, places, False))
    lines = list(_LINE.finditer(text))
    if len(lines) > 1:
        line = lines[-1]
        target = letter_at(text, line.start() + len(line[0]) - len(line[0].lstrip(" \t([\"'")), options)
        if target is not None and not text[target.end :].strip(" \t.)]!\"'"):
            found.append(Claim(target.start, target.places, True))
    return found


def _repeats_the_options(text: str, options: Options) -> bool:
    """Whether several options stand there by letter and text, or begin sentences: the list again, and no choice."""
    listed = frozenset[int]()
    for match in _LISTED.finditer(text):
        own = options.letter_places(match["letter"], as_text=False)
        named = options.named_by(text, match.end())
        begins = _SENTENCE_BEGINS.search(text, max(0, match.start() - 10), match.start()) is not None
        if begins or (named is not None and named.places & own):
            listed |= own
    return len(listed) > 1
