"""Rows of Parquet files with audio in them, read without holding the audio in memory."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mufun_jax.errors import UserError
from mufun_jax.evaluate.benchmark_question import Song

# Rows decoded together: some MB each with audio. Pages are read one by one, whatever the size of the row groups.
_BATCH = 8
_BUFFER = 1 << 20  # bytes


def parquet_rows(path: Path, audio_column: str | None) -> Iterator[tuple[dict[str, Any], Song | None]]:
    """All rows of a file in order: the values, and the audio that is in the file. Its key is the SHA-256 of its bytes.

    The audio column holds bytes, a name, or a struct of both as the `datasets` library writes it: {bytes, path}; among
    the values stands its name. Other columns of bytes are left out.

    Raises:
        UserError: pyarrow is missing, or the file is no Parquet file or damaged.
    """
    pyarrow = _pyarrow()
    try:
        with _opened(path) as file:
            schema = file.schema_arrow
            columns = [name for name in schema.names if name == audio_column or not _has_bytes(schema.field(name).type)]
            at = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                audio = batch.column(audio_column) if audio_column in batch.schema.names else None
                rest = batch.drop_columns([audio_column]) if audio is not None else batch
                for place, fields in enumerate(rest.to_pylist()):
                    yield _row(path, audio_column, fields, audio, place, at + place)
                at += batch.num_rows
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: is no Parquet file, or a damaged one: {error}; download it again") from None


def parquet_columns(path: Path) -> list[str]:
    """The names of a file's columns. Raises UserError as `parquet_rows` does."""
    pyarrow = _pyarrow()
    try:
        with _opened(path) as file:
            return list(file.schema_arrow.names)
    except pyarrow.ArrowException as error:
        raise UserError(f"{path}: is no Parquet file, or a damaged one: {error}; download it again") from None


def _row(
    path: Path, column: str | None, fields: dict[str, Any], audio: Any, place: int, number: int
) -> tuple[dict[str, Any], Song | None]:
    if audio is None:
        return fields, None
    assert column is not None
    data, name = _audio_cell(audio, place)
    song = None
    if data is not None:
        key = hashlib.sha256(memoryview(data)).hexdigest()
        song = Song(key, lambda: read_cell(path, column, number, key))
    return {**fields, column: name}, song


def _audio_cell(audio: Any, place: int) -> tuple[Any, str | None]:
    """The bytes (as a buffer of Arrow's) and the name in a cell of an audio column, None for what is not there."""
    import pyarrow.types as types

    cell = audio[place]
    if not cell.is_valid:
        return None, None
    if types.is_struct(audio.type):
        parts = {audio.type.field(i).name for i in range(audio.type.num_fields)}
        data = cell["bytes"] if "bytes" in parts else None
        name = cell["path"].as_py() if "path" in parts else None
        found = data.as_buffer() if data is not None and data.is_valid else None
        return (found if found is not None and found.size else None), name
    if types.is_string(audio.type) or types.is_large_string(audio.type):
        return None, cell.as_py()
    if types.is_binary(audio.type) or types.is_large_binary(audio.type):
        return (cell.as_buffer() if cell.as_buffer().size else None), None
    return None, None


def read_cell(path: Path, column: str, number: int, key: str) -> bytes:
    """The bytes of the audio in row `number` of a file, of which only that row's group is read, page by page.

    Raises UserError where they are not those whose SHA-256 is `key` any more.
    """
    pyarrow = _pyarrow()
    data = None
    try:
        with _opened(path) as file:
            if number < file.metadata.num_rows:
                data = _cell(file, column, number)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}, row {number}: the audio cannot be read any more: {error}") from None
    if data is None or hashlib.sha256(data).hexdigest() != key:
        raise UserError(f"{path}: row {number} has not the audio any more that it had; was the file changed?")
    return data


def _cell(file: Any, column: str, number: int) -> bytes | None:
    group, first = 0, 0
    while first + file.metadata.row_group(group).num_rows <= number:
        first += file.metadata.row_group(group).num_rows
        group += 1
    for at, batch in enumerate(file.iter_batches(batch_size=1, row_groups=[group], columns=[column]), first):
        if at == number:
            data, _ = _audio_cell(batch.column(0), 0)
            return None if data is None else data.to_pybytes()
    return None


def _opened(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER)


def _has_bytes(type_: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(type_) or types.is_list(type_) or types.is_large_list(type_):
        return any(_has_bytes(type_.field(i).type) for i in range(type_.num_fields))
    return types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UserError(
            "reading Parquet files needs pyarrow, which is not installed: pip install 'mufun_jax[evaluate]'"
        ) from None
    return pyarrow
