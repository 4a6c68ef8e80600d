"""Keys: the weighted score of MIREX, and exact accuracy."""

import re
from collections.abc import Sequence

from mir_eval.key import weighted_score

from data_pipelines.keys import pitch_class
from data_pipelines.score_questions import key_name
from mufun_jax.evaluate.metrics.measured import Measured, mean_of

_TONIC = r"(?P<letter>[A-G])(?P<sign>#|♯|b|♭|[\s-]?(?:[Ss]harp|[Ff]lat|SHARP|FLAT)\b)?"
_MODE = r"(?:[\s:-]*(?P<word>(?i:major|minor|maj|min))|(?P<short>m|M))"
# A chord or a scale of five notes on the tonic is no key.
_NO_KEY = r"(?![\w#♯])(?!\s+(?i:chords?|triads?|pentatonic|blues|sixth|seventh|ninth|third|\d))"
_KEY = re.compile(rf"(?<![\w#♯♭]){_TONIC}{_MODE}{_NO_KEY}")
# "A minor key is used" begins with an article; "A minor", "A minor, I think" and "A minor is the key" with a tonic.
_ARTICLE = re.compile(r"A (?i:major|minor)\s+(?!is\b)\w")


def read_key(text: str) -> str | None:
    """The one key that a text names, as mir_eval writes it ("C# major"); None where it names none or several.

    Spelt as "F# minor", "F♯m", "Gb major", "G-flat major", "A:min", or in a sentence. In a sentence the tonic is a
    capital ("in a minor key" names none); where the text is the key alone, it may be small. A tonic without a mode,
    other modes, chords, and the German names (H, B-Dur) are not read. Enharmonic spellings are one key.
    """
    alone = text.strip().rstrip(".!").strip()
    if re.fullmatch(rf"{_TONIC}{_MODE}", alone[:1].upper() + alone[1:]):
        text = alone[:1].upper() + alone[1:]
    found = {_spelt(match) for match in _KEY.finditer(text) if not _is_article(text, match)}
    return found.pop() if len(found) == 1 else None


def measure_keys(replies: Sequence[str], references: Sequence[str]) -> Measured:
    """`weighted`: mir_eval's score of each reply (1 the key, 0.5 a fifth above it, 0.3 its relative, 0.2 its parallel),
    averaged; `accuracy`: the share of exact keys. An unreadable reply has 0 and is counted. `weighted` is the main one.

    Every reference is one that `read_key` reads.
    """
    weighted, exact, unreadable = [], [], 0
    for reply, reference in zip(replies, references, strict=True):
        key, right = read_key(reply), read_key(reference)
        assert right is not None
        unreadable += key is None
        weighted.append(0.0 if key is None else float(weighted_score(right, key)))
        exact.append(float(key == right))
    n = len(exact)
    figures = {"weighted": sum(weighted) / n, "accuracy": sum(exact) / n, "unreadable": float(unreadable)}
    return mean_of(weighted, figures)


def _spelt(match: re.Match[str]) -> str:
    sign = (match["sign"] or "").lower()
    tonic = pitch_class(match["letter"] + ("#" if "sharp" in sign else "b" if "flat" in sign else sign))
    assert tonic is not None
    mode = "minor" if match["short"] == "m" or (match["word"] or "").lower().startswith("min") else "major"
    return key_name(tonic, mode)


def _is_article(text: str, match: re.Match[str]) -> bool:
    before = text[: match.start()]
    said = before.rstrip()
    begins = not said or said[-1] in ".!?" or "\n" in before[len(said) :]
    return begins and _ARTICLE.match(text, match.start()) is not None
