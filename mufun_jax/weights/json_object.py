"""JSON files that strangers wrote: an object, with no key twice, or one line that says what is wrong."""

import json
from pathlib import Path
from typing import Any

from mufun_jax.errors import CheckpointError

SIZE_LIMIT = 100 * 1024**2  # bytes; the headers and indexes of models of a million tensors are smaller


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError where there is none."""
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise CheckpointError(f"{path}: {path.stat().st_size} bytes of JSON; at most {SIZE_LIMIT} are read")
        data = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; was the folder copied whole?") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_json_object(data, str(path))


def parse_json_object(data: bytes, where: str) -> dict[str, Any]:
    """The object that `data` holds; `where` begins the message of a CheckpointError."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=lambda pairs: _without_doubles(pairs, where))
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{where}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{where}: not a JSON object but {type(value).__name__}")
    return value


def _without_doubles(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise CheckpointError(f"{where}: {name!r} is there twice")
        values[name] = value
    return values
