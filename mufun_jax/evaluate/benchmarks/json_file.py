"""Rows of JSON files and JSON lines that strangers wrote."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError

FILE_LIMIT = 500 * 1024**2  # bytes of a JSON file, which is read whole
LINE_LIMIT = 16 * 1024**2  # characters of a line of JSON lines


def json_objects(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON file that is a list of objects, or of a file that has one on each line.

    Raises:
        UserError: the file is neither, or too long.
    """
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            if _first_character(file) == "[":
                yield from _listed(path)
            else:
                yield from _lines(path, file)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8: {error.reason} at byte {error.start}") from None


def _first_character(file: Any) -> str:
    """The first that is no space; the file is then at its beginning again."""
    while (character := file.read(1)).isspace():
        pass
    file.seek(0)
    return character


def _listed(path: Path) -> Iterator[dict[str, Any]]:
    size = path.stat().st_size
    if size > FILE_LIMIT:
        raise UserError(f"{path}: {size} bytes of JSON; at most {FILE_LIMIT} are read; make it JSON lines")
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON: {error}") from None
    for number, value in enumerate(values, 1):
        yield _object(value, f"{path}, entry {number}")


def _lines(path: Path, file: Any) -> Iterator[dict[str, Any]]:
    number = 0
    while line := file.readline(LINE_LIMIT + 1):
        number += 1
        where = f"{path}, line {number}"
        if len(line) > LINE_LIMIT:
            raise UserError(f"{where}: longer than {LINE_LIMIT} characters; is this a file of JSON lines?")
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: is not JSON: {error}; a JSON list or one object a line is expected") from None
        yield _object(value, where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: is a {type(value).__name__}; an object with the fields of a question is expected")
    return value
