"""`results.jsonl`: a run's results, a line each, under a line that says of what run they are.

Lines are appended with fsync. A kill can leave a last line without its end: that is cut off, and asked again. Whatever
else is wrong in a file was not this program's doing, and is refused with its line.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from mufun_jax.errors import UserError
from mufun_jax.evaluate.result import Condition, Result

_FORMAT = "mufun_jax results 1"
_LONGEST_LINE = 64 * 1024**2  # bytes; a result has some thousand

_Line = TypeVar("_Line", "RunHeader", Result)
Key = tuple[str, Condition, int]  # the question's id, the condition, and the rotation


@dataclass(frozen=True)
class RunHeader:
    """The first line. A run goes on only where all but `model`, what its user calls the model, is the same.

    `questions_digest` is of the questions as they were read, with their options and answers. `sets` and `limit` are
    None for all. `judge_digest` is that of the judge's folder.
    """

    format: str
    benchmark: str
    model: str
    model_digest: str
    questions_digest: str
    sets: tuple[str, ...] | None
    conditions: tuple[Condition, ...]
    rotations: int
    limit: int | None
    max_new_tokens: int
    dtype: str
    quantize: str | None
    judge_digest: str | None
    host: int
    hosts: int


def make_header(**values: object) -> RunHeader:
    """A header of this version's format."""
    return RunHeader(format=_FORMAT, **values)  # pyright: ignore[reportArgumentType]  checked where it is read


@dataclass(frozen=True)
class Results:
    """What a file has."""

    header: RunHeader
    results: tuple[Result, ...]


class ResultsFile:
    """Appends to a file, which it begins or goes on with."""

    def __init__(self, path: Path, header: RunHeader):
        """Raises UserError where the file is damaged, or of another run: it says what differs."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        found = read_results(path) if path.is_file() and path.stat().st_size else None
        if found is not None:
            _check_same(path, found.header, header)
        self.done: set[Key] = {key_of(result) for result in found.results} if found else set()
        if found is None:
            _append(path, _line(asdict(header)))

    def add(self, results: Sequence[Result]) -> None:
        """Writes results to the disk. Those that are there already must not come again."""
        keys = [key_of(result) for result in results]
        assert not self.done & set(keys) and len(set(keys)) == len(keys), "a row twice"
        if results:
            _append(self.path, b"".join(_line(asdict(result)) for result in results))
        self.done |= set(keys)


def key_of(result: Result) -> Key:
    return result.id, result.condition, result.rotation


def read_results(path: Path) -> Results:
    """Reads a file; a last line without its end is left out.

    Raises UserError where it is not there, or a line is no result: with the number of the line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no results here; run the benchmark into this folder first")
    header, results, lines = None, [], {}
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
            if not line.endswith(b"\n"):
                if len(line) == _LONGEST_LINE:
                    raise UserError(f"{path}, line {number}: is longer than {_LONGEST_LINE:,} bytes; run it anew")
                break
            if header is None:
                header = _parsed(path, number, line, RunHeader)
                if header.format != _FORMAT:
                    raise UserError(f"{path}: is of the format {header.format!r}, not {_FORMAT!r}; run it anew")
                continue
            result = _parsed(path, number, line, Result)
            before = lines.setdefault(key_of(result), number)
            if before != number:
                raise UserError(
                    f"{path}, line {number}: question {result.id!r} is answered in line {before} already; take one out"
                )
            results.append(result)
    if header is None:
        raise UserError(f"{path}: has no line that says of what run it is; take the file away, and run it anew")
    return Results(header, tuple(results))


def results_path(folder: Path, host: int, hosts: int) -> Path:
    """`results.jsonl`, or of several hosts `results.2.jsonl` of the third."""
    return folder / ("results.jsonl" if hosts == 1 else f"results.{host}.jsonl")


def read_folder(folder: Path) -> tuple[RunHeader, tuple[Result, ...], tuple[int, ...]]:
    """All results in a run's folder, under the first one's header, and the hosts that have written none.

    Raises UserError where there is none, or files are of different runs.
    """
    paths = sorted(folder.glob("results.*.jsonl"), key=lambda path: (len(path.name), path.name))
    if (folder / "results.jsonl").exists():
        if paths:
            raise UserError(f"{folder}: has results.jsonl of one host and {paths[0].name} of several; keep one run's")
        paths = [folder / "results.jsonl"]
    if not paths:
        raise UserError(f"{folder}: no results here; run the benchmark into this folder first")
    header, results, hosts = None, {}, set()
    for path in paths:
        found = read_results(path)
        if path != results_path(folder, found.header.host, found.header.hosts):
            raise UserError(f"{path}: is of host {found.header.host} of {found.header.hosts}; it was renamed")
        hosts.add(found.header.host)
        header = header or found.header
        _check_same(path, found.header, header, but=("model", "host"))
        for result in found.results:
            if key_of(result) in results:
                raise UserError(f"{path}: question {result.id!r} is answered by another host already; take one out")
            results[key_of(result)] = result
    assert header is not None
    return header, tuple(results.values()), tuple(sorted(set(range(header.hosts)) - hosts))


def _check_same(path: Path, found: RunHeader, wanted: RunHeader, but: Sequence[str] = ("model",)) -> None:
    ours, theirs = asdict(wanted), asdict(found)
    differ = [name for name in ours if name not in but and ours[name] != theirs[name]]
    if differ:
        shown = "; ".join(f"{name} {_short(theirs[name])} there and {_short(ours[name])} here" for name in differ)
        raise UserError(f"{path}: is of another run ({shown}); give the same options, or another --out")


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parsed(path: Path, number: int, line: bytes, kind: type[_Line]) -> _Line:
    what = "a result" if kind is Result else "the beginning of a run"
    try:
        found = TypeAdapter(kind).validate_json(line, strict=True)
        extra = set(json.loads(line)) - {field.name for field in fields(kind)}
    except (ValidationError, ValueError, RecursionError) as error:
        reason = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(map(str, reason["loc"]))
        raise UserError(
            f"{path}, line {number}: is not {what}: {f'{where}: ' if where else ''}{reason['msg']}; the file was "
            f"changed: mend the line, or run it anew"
        ) from None
    if extra:
        raise UserError(f"{path}, line {number}: is not {what}: it has {', '.join(map(repr, sorted(extra)))} too")
    return found


def _cut_torn_line(path: Path) -> None:
    """Takes back what follows the last whole line."""
    if not path.is_file():
        return
    with path.open("r+b") as file:
        whole, at = 0, 0
        while block := file.read(2**20):
            at += len(block)
            if (last := block.rfind(b"\n")) >= 0:
                whole = at - len(block) + last + 1
        if whole < at:
            file.truncate(whole)


def _line(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _append(path: Path, data: bytes) -> None:
    """Appends, and waits until it is on the disk."""
    with path.open("ab", buffering=0) as file:
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
