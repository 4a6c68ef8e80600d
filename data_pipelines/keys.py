"""Musical keys and pitch classes: one spelling each, the score corpus's, whatever a data set writes."""

import re

from data_pipelines.score_questions import PITCH_CLASSES, answers_of, key_name

KEYS = answers_of("key")

_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"#": 1, "♯": 1, "b": -1, "♭": -1}
_PITCH = re.compile(r"([A-Ga-g])([#♯b♭]*)")
_MODES = {"": "major", "maj": "major", "major": "major", "m": "minor", "min": "minor", "minor": "minor"}


def pitch_class(name: str) -> int | None:
    """0 to 11, C being 0, for a name such as `Db` or `C#`; None for what is no pitch class."""
    found = _PITCH.fullmatch(name.strip())
    if found is None:
        return None
    return (_NATURALS[found[1].upper()] + sum(_ACCIDENTALS[sign] for sign in found[2])) % 12


def spelt_key(name: str) -> str | None:
    """The one spelling of a major or minor key; None for other modes and for what is no key.

    `D# minor`, `Ebm`, `D#:min` and `eb minor` all give `Eb minor`; a bare tonic is major.
    """
    found = re.fullmatch(r"([A-Ga-g][#♯b♭]*)[\s:]*([A-Za-z]*)", name.strip())
    if found is None:
        return None
    tonic = pitch_class(found[1])
    # "M" alone is major and "m" minor; the words may have any case.
    mode = "major" if found[2] == "M" else _MODES.get(found[2].lower())
    return None if tonic is None or mode is None else key_name(tonic, mode)


def relative(key: str) -> str:
    """The key of the other mode with the same notes: A minor for C major."""
    tonic, mode = _parts(key)
    return key_name(tonic - 3, "minor") if mode == "major" else key_name(tonic + 3, "major")


def parallel(key: str) -> str:
    """The key of the other mode on the same tonic: C minor for C major."""
    tonic, mode = _parts(key)
    return key_name(tonic, "minor" if mode == "major" else "major")


def _parts(key: str) -> tuple[int, str]:
    tonic, mode = key.split()
    return PITCH_CLASSES.index(tonic), mode
