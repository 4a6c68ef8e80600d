"""What a model replied, freed of what is not its answer: thoughts, mark-up, the many forms of one character."""

import re
import unicodedata

_THOUGHT_ENDS = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_THOUGHT_BEGINS = re.compile(r"<(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_CONTROL_TOKEN = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>")
_TEX_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textit)\s*\{([^{}]*)\}")
_MARKED_PARTS = (
    re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.IGNORECASE | re.DOTALL),
    re.compile(r"\\boxed\s*\{([^{}]*)\}"),
    re.compile(
        r"""["'](?:final_?|correct_?)?(?:answer|choice|option|letter|prediction)["']\s*:\s*["']([^"'\n]*)["']""",
        re.IGNORECASE,
    ),
)
_SAME = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "♯": "#", "♭": "b", "‐": "-", "‑": "-"})
_EMPHASIS = re.compile(r"\*+|`+|(?<!\w)_+|_+(?!\w)|^[ \t]*#{1,6}[ \t]+|^[ \t]*>[ \t]+|\$", re.MULTILINE)
_BULLET = re.compile(r"^[ \t]*[-•·][ \t]+", re.MULTILINE)
_JOINED = re.compile(r"(?<=[^\W\d_]{2})-(?=[^\W\d_]{2})")  # hip-hop is hip hop; C-sharp is not C sharp
_GLUED = re.compile(r"^(\s*\(?[A-Z][.):])(?=[^\W_])", re.MULTILINE)  # B.disco


def last_thought_removed(reply: str) -> str | None:
    """What follows the thinking. None where thinking was begun and not ended: there is no answer yet."""
    text = _THOUGHT_ENDS.split(reply)[-1]
    return None if _THOUGHT_BEGINS.search(text) else text


def marked_parts(text: str) -> list[str]:
    """What stands in `<answer>…</answer>`, in `\\boxed{…}`, or as a JSON object's answer."""
    return [part for pattern in _MARKED_PARTS for part in pattern.findall(_TEX_TEXT.sub(r"\1", text))]


def plain(text: str) -> str:
    """One form for each character (full-width letters, quotes, sharps), without mark-up and spaces at the ends."""
    text = unicodedata.normalize("NFKC", _CONTROL_TOKEN.sub(" ", text)).translate(_SAME)
    text = _BULLET.sub("", _EMPHASIS.sub("", _TEX_TEXT.sub(r"\1", text)))
    return _GLUED.sub(r"\1 ", _JOINED.sub(" ", text)).strip()
