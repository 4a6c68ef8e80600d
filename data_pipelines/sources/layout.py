"""How a data set lies on disk: finding its parts, and reading its tables with errors that name file and line."""

import csv
from collections.abc import Iterator
from pathlib import Path

from mufun_jax.errors import ManifestError, nearest

_LONGEST_CELL = 1 << 24  # characters; some tables hold whole biographies


def optional(folder: Path, *candidates: str) -> Path | None:
    """The first of these paths below the folder that is there."""
    return next((folder / name for name in candidates if (folder / name).exists()), None)


def found(folder: Path, *candidates: str) -> Path:
    """The first of these paths below the folder that is there.

    Raises ManifestError, which names them all, where none is.
    """
    path = optional(folder, *candidates)
    if path is None:
        raise ManifestError(f"{folder}: holds no {' and no '.join(candidates)}; unpack the data set there")
    return path


def base_of(folder: Path, bases: tuple[str, ...], inner: str) -> str:
    """Which of these folders (`""` is the folder itself) holds something that matches `inner`; ends in a slash.

    Raises ManifestError where none does.
    """
    for base in bases:
        if any((folder / base).glob(inner)):
            return f"{base}/" if base else ""
    names = " or ".join(f"{base}/{inner}" if base else inner for base in bases)
    raise ManifestError(f"{folder}: no audio in {names}; unpack the data set's audio there")


def rows(path: Path, delimiter: str, quoted: bool = True) -> Iterator[tuple[int, list[str]]]:
    """The rows of a table that are not empty, each with the number of its last line.

    Raises ManifestError where the file is missing, is not UTF-8, or cannot be split into cells.
    """
    if not path.is_file():
        raise ManifestError(f"{path}: no such file; unpack the data set there")
    csv.field_size_limit(_LONGEST_CELL)
    quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            for cells in reader:
                if any(cells):
                    yield reader.line_num, cells
        except (csv.Error, UnicodeDecodeError) as error:
            raise bad_row(path, reader.line_num + 1, str(error)) from None


def columns(path: Path, names: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    """The cells of some columns of a table with commas and a line of heads, each row with its line number.

    Raises ManifestError where a column is missing, or a row has more or fewer cells than there are heads.
    """
    lines = rows(path, ",")
    line, heads = next(lines, (1, []))
    for name in names:
        if name not in heads:
            raise bad_row(path, line, f"no column {name!r}{nearest(name, heads)}")
    places = [heads.index(name) for name in names]
    for line, cells in lines:
        if len(cells) != len(heads):
            raise bad_row(path, line, f"{len(cells)} cells below {len(heads)} columns")
        yield line, [cells[place].strip() for place in places]


def bad_row(path: Path, line: int, what: str) -> ManifestError:
    """The error for a line that does not say what it should."""
    return ManifestError(f"{path}, line {line}: {what}; fetch the file again or mend the line")


def first_line(path: Path) -> str:
    """The first line of a small text file, without the space around it.

    Raises ManifestError where the file has none, or is not UTF-8.
    """
    try:
        line = path.read_text(encoding="utf-8-sig").strip().partition("\n")[0].strip()
    except UnicodeDecodeError as error:
        raise bad_row(path, 1, str(error)) from None
    if not line:
        raise bad_row(path, 1, "is empty")
    return line


def beats_a_minute(path: Path) -> str:
    """The tempo in a file that holds just this number, rounded to whole beats.

    Raises ManifestError where it is no number above 0.
    """
    line = first_line(path)
    try:
        tempo = round(float(line))
    except (ValueError, OverflowError):
        tempo = 0
    if tempo < 1:
        raise bad_row(path, 1, f"{line!r} is no tempo in beats a minute")
    return str(tempo)
