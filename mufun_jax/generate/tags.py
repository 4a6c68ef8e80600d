"""What `mufun tag` says of a song: one JSON object, asked for in one question."""

import json
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.generate.constraint import Constraint

_TEXT = {"type": "string", "minLength": 1, "maxLength": 32}
_TEXTS = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 5}
_NOTES = [f"{note}{accidental}" for note in "CDEFGAB" for accidental in ("", "#", "b")]

TAGS: dict[str, dict[str, Any]] = {
    "genre": _TEXT,
    "mood": _TEXTS,
    "instruments": _TEXTS,
    "key": {"enum": [f"{note} {mode}" for note in _NOTES for mode in ("major", "minor")]},
    "tempo": {"type": "integer", "minimum": 30, "maximum": 300},  # beats a minute
    "lyrics": {"type": "string", "maxLength": 240},  # empty where nobody sings
}
MOST_TOKENS = 1024  # more than the longest tags have characters


def read_fields(names: str | None) -> list[str]:
    """The tags of a list with commas; all of them for None. Raises UserError for one that is not there."""
    if names is None:
        return list(TAGS)
    fields = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in fields if name not in TAGS]
    if unknown or not fields:
        raise UserError(f"--fields {names}: {', '.join(unknown) or 'nothing'} is no tag; there are {', '.join(TAGS)}")
    return list(dict.fromkeys(fields))


def tag_question(fields: list[str]) -> str:
    """What the model is asked."""
    return f"<audio>\nDescribe this song as JSON with {', '.join(fields)}."


def tag_constraint(fields: list[str]) -> Constraint:
    """What it may answer."""
    properties = {name: TAGS[name] for name in fields}
    schema = {"type": "object", "properties": properties, "required": fields, "additionalProperties": False}
    return Constraint.json(schema)


def read_tags(text: str) -> dict[str, Any]:
    """The tags of an answer."""
    return json.loads(text)
