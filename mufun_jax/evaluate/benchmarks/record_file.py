"""The records of a benchmark's file, whatever its format, and the files of a folder."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import Song
from mufun_jax.evaluate.benchmarks.json_file import json_objects
from mufun_jax.evaluate.benchmarks.parquet_file import parquet_rows
from mufun_jax.weights.bounded_path import file_in

SHARD = re.compile(r"(?P<set>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]{16})?")  # as the hub names them
_FOLDER_LIMIT = 100_000  # entries of a folder that are looked through for files of records


def records(
    path: Path, benchmark: str, required: Sequence[str], audio_column: str | None = None
) -> Iterator[tuple[dict[str, Any], Song | None]]:
    """Each record's values, and the audio that stands in the file itself (of Parquet only).

    A required field that a later record has not is None there.

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
        yield {**dict.fromkeys(required), **fields}, song
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


def record_files(folder: Path, patterns: Sequence[str], benchmark: str) -> list[Path]:
    """The files of the first of these patterns (relative to `folder`) that has any, all of their shards.

    Raises UserError where there is none of them, or a shard is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the one that {benchmark} was downloaded to")
    for pattern in patterns:
        names = sorted(str(path.relative_to(folder)) for path in folder.glob(pattern))
        if names:
            return _shards_in_order(folder, [file_in(folder, name) for name in names])
    raise UserError(f"{folder}: no {benchmark} in it; expected is {' or '.join(patterns)}")


def _shards_in_order(folder: Path, paths: Sequence[Path]) -> list[Path]:
    sets: dict[str, dict[tuple[int, int], Path]] = {}
    for path in paths:
        shard = SHARD.fullmatch(path.stem)
        place = (int(shard["number"]), int(shard["count"])) if shard else (0, 1)
        sets.setdefault(shard["set"] if shard else path.stem, {})[place] = path
    return [path for name, shards in sets.items() for path in whole(name, shards, folder)]


def whole(name: str, shards: Mapping[tuple[int, int], Path], folder: Path) -> list[Path]:
    """The shards of a file, by (number, count), in order. Raises UserError where not all of them are there."""
    counts = {count for _, count in shards}
    missing = sorted(set(range(max(counts))) - {number for number, _ in shards})
    if len(counts) > 1 or missing or len(shards) != max(counts):
        wrong = "is there in parts of different versions" if len(counts) > 1 else f"lacks its parts {missing}"
        raise UserError(f"{folder}: {name} {wrong}; download it again")
    return [path for _, path in sorted(shards.items())]
