"""`mufun tag`: whole folders of songs described, into a table or JSON lines. Run again, it goes on."""

import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mufun_jax.ask_command import DType, loaded_model
from mufun_jax.errors import UserError
from mufun_jax.progress import progress_bar

if TYPE_CHECKING:
    from mufun_jax.generate.chat import MuFun

AUDIO_SUFFIXES = frozenset(
    (".aif", ".aiff", ".au", ".flac", ".m4a", ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm")
)
_AT_ONCE = 4  # songs
_HEARD = ("seconds_used", "seconds_dropped")


def tag(places: Sequence[Path], out: Path, fields: list[str], checkpoint: str, dtype: DType, quantize: Any) -> bool:
    """Writes a row for every file that `out` has none of yet. False where a file could not be described."""
    table = TagTable(out, fields)
    files = find_audio(places)
    if not files:
        raise UserError(f"{', '.join(map(str, places))}: no audio files here ({', '.join(sorted(AUDIO_SUFFIXES))})")
    waiting = [file for file in files if str(file) not in table.done]
    failed: list[str] = []
    if waiting:
        with loaded_model(checkpoint, dtype, quantize) as model, progress_bar("Tagging") as advance:
            advance(0, len(waiting))
            for start in range(0, len(waiting), _AT_ONCE):
                for row in describe(model, waiting[start : start + _AT_ONCE], fields, failed):
                    table.add(row)
                advance(min(len(waiting), start + _AT_ONCE), len(waiting), f"{len(failed)} failed" if failed else "")
    print(f"{len(table.done)} of {len(files)} files are in {out}")
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    return not failed


def describe(model: "MuFun", files: Sequence[Path], fields: list[str], failed: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each file that could be described; what was wrong with the others is added to `failed`."""
    from mufun_jax.generate.question import make_question
    from mufun_jax.generate.tags import MOST_TOKENS, read_tags, tag_constraint, tag_question

    questions = []
    for file in files:
        question = make_question(tag_question(fields), file)
        try:
            model.listener.prompt(question)
        except UserError as error:
            failed.append(str(error))
        else:
            questions.append(question)
    answers = model.answer(questions, max_new_tokens=MOST_TOKENS, constraint=tag_constraint(fields))
    for question, answer in zip(questions, answers, strict=True):
        if not answer.finished:
            failed.append(f"{question.audio_files[0]}: the answer was not complete after {MOST_TOKENS} tokens")
            continue
        heard = {name: getattr(answer.heard[0], name) for name in _HEARD}
        yield {"file": answer.heard[0].file, **read_tags(answer.text), **heard}


def find_audio(places: Sequence[Path]) -> list[Path]:
    """Files as they are given, and those of audio in folders, in order. Raises UserError for what is not there."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            inside = (Path(folder) / name for folder, _, names in os.walk(place) for name in names)
            found |= dict.fromkeys(sorted(path for path in inside if path.suffix.lower() in AUDIO_SUFFIXES))
        elif place.exists():
            found[place] = None
        else:
            raise UserError(f"{place}: is not there; give audio files, or folders of them")
    return list(found)


class TagTable:
    """The rows of a `.csv` or `.jsonl` file, each on the disk as soon as it is added."""

    def __init__(self, path: Path, fields: list[str]):
        """Raises UserError for another kind of file, or one with other columns."""
        if path.suffix not in (".csv", ".jsonl"):
            raise UserError(f"{path}: write a .csv or a .jsonl file")
        self._path, self._columns = path, ["file", *fields, *_HEARD]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.done: set[str] = set()
        self._repair()
        if path.suffix == ".csv":
            self._read_csv()
        else:
            self._read_json_lines()

    def add(self, row: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._csv_line(row) if self._path.suffix == ".csv" else self._json_line(row))
            file.flush()
            os.fsync(file.fileno())
        self.done.add(row["file"])

    def _repair(self) -> None:
        """Takes back half a line, which a kill left."""
        if self._path.is_file():
            written = self._path.read_bytes()
            whole = written[: written.rfind(b"\n") + 1]
            if len(whole) < len(written):
                self._path.write_bytes(whole)

    def _read_csv(self) -> None:
        if not self._path.is_file() or not self._path.stat().st_size:
            self._path.write_text(self._csv_line(dict(zip(self._columns, self._columns, strict=True))), "utf-8")
            return
        with self._path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if rows.fieldnames != self._columns:
                raise UserError(
                    f"{self._path}: is there, with columns {', '.join(rows.fieldnames or ())} and not "
                    f"{', '.join(self._columns)}; write another file, or give the same --fields"
                )
            self.done = {row["file"] for row in rows}

    def _read_json_lines(self) -> None:
        if not self._path.is_file():
            return
        with self._path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    self.done.add(json.loads(line)["file"])
                except (ValueError, KeyError, TypeError):
                    raise UserError(f"{self._path}, line {number}: is no row of tags; write another file") from None

    def _csv_line(self, row: dict[str, Any]) -> str:
        """A line without line breaks inside: whatever has whole lines has whole rows."""
        written = io.StringIO()
        values = map(row.get, self._columns)
        cells = ("; ".join(map(str.strip, cell)) if isinstance(cell, list) else str(cell).strip() for cell in values)
        csv.writer(written, lineterminator="\n").writerow(" / ".join(cell.splitlines()) for cell in cells)
        return written.getvalue()

    def _json_line(self, row: dict[str, Any]) -> str:
        return json.dumps({name: row[name] for name in self._columns}, ensure_ascii=False) + "\n"
