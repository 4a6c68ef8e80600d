"""The records of a benchmark's file, whatever its format, and the files of a folder."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import Song
from mufun_jax.evaluate.benchmarks.json_file import json_objects
from mufun_jax.evaluate.benchmarks.parquet_file import parquet_rows
from mufun_jax.weights.bounded_path import file_in

_FOLDER_LIMIT = 100_000  # entries of a folder that are looked through for files of records


def records(
    path: Path, benchmark: str, required: Sequence[str], audio_column: str | None = None
) -> Iterator[tuple[dict[str, Any], Song | None]]:
    """Each record's values, and the audio that stands in the file itself (of Parquet only).

    Raises:
        UserError: no file of records, or the first has not all the fields that the benchmark's have.
    """
    first = True
    for fields, song in _records(path, audio_column):
        if first:
            missing = [name for name in required if name not in fields]
            if missing:
                raise UserError(
                    f"{path}: is not of {benchmark}: its records have no field {', '.join(map(repr, missing))}, only "
                    f"{', '.join(map(repr, list(fields)[:30]))}; expected are {', '.join(map(repr, required))}"
                )
        first = False
        yield fields, song
    if first:
        raise UserError(f"{path}: is empty; expected are records of {benchmark}: {', '.join(map(repr, required))}")


def _records(path: Path, audio_column: str | None) -> Iterator[tuple[dict[str, Any], Song | None]]:
    match path.suffix:
        case ".parquet":
            yield from parquet_rows(path, audio_column)
        case ".csv":
            yield from ((fields, None) for fields in _csv_rows(path))
        case _:
            yield from ((fields, None) for fields in json_objects(path))


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, restkey="", strict=True)
        try:
            for fields in table:
                if "" in fields or None in fields.values():
                    raise UserError(f"{path}, line {table.line_num}: has not as many cells as the heading names")
                yield fields
        except (csv.Error, UnicodeDecodeError) as error:
            raise UserError(f"{path}, line {table.line_num + 1}: is not CSV in UTF-8: {error}") from None


def files_in(folder: Path, suffixes: Sequence[str], depth: int = 2) -> list[Path]:
    """The files of these suffixes in a folder and its folders, hidden ones left out, sorted by name.

    Raises:
        UserError: no such folder, or one so full that it is hardly a benchmark's.
        CheckpointError: a file is a link that leads out of the folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one that the benchmark was downloaded to")
    found, looked = [], 0
    pending = [(folder, 0)]
    while pending:
        place, level = pending.pop()
        for entry in place.iterdir():
            looked += 1
            if looked > _FOLDER_LIMIT:
                raise UserError(f"{folder}: more than {_FOLDER_LIMIT} files; give the benchmark's own folder")
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if level < depth and not entry.is_symlink():
                    pending.append((entry, level + 1))
            elif entry.suffix in suffixes:
                found.append(file_in(folder, str(entry.relative_to(folder))))
    return sorted(found)
