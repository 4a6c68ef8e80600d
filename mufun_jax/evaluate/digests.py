"""SHA-256 digests of what a result came from: audio, texts, the questions, the model's folder, this package's code."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from mufun_jax.errors import CheckpointError
from mufun_jax.evaluate.benchmark_question import BadRow, BenchmarkQuestion

_BLOCK = 2**24  # bytes
_NO_MODEL = frozenset(("README.md",))  # a model card may be reworded


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def audio_digest(audio: Path | bytes) -> str:
    """Of a file's bytes. Raises OSError where it cannot be read."""
    if isinstance(audio, bytes):
        return hashlib.sha256(audio).hexdigest()
    with audio.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(folder: Path, advance: Callable[[int, int], None] = lambda done, total: None) -> str:
    """Of the names and bytes of all files in a model's folder but its card. `advance` gets bytes read and in all.

    Raises CheckpointError where there is no file.
    """
    files = (
        sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".") if folder.is_dir() else []
    )
    files = [path for path in files if path.name not in _NO_MODEL]
    if not files:
        raise CheckpointError(f"{folder}: no model here")
    said, done, total = hashlib.sha256(), 0, sum(path.stat().st_size for path in files)
    for path in files:
        of_file = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                of_file.update(block)
                done += len(block)
                advance(done, max(done, total))
        said.update(f"{path.name}\0{of_file.hexdigest()}\n".encode())
    return said.hexdigest()


def code_digest() -> str:
    """Of this package's source."""
    root, said = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        said.update(f"{path.relative_to(root).as_posix()}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return said.hexdigest()


def questions_digest(questions: Iterable[BenchmarkQuestion], bad_rows: Iterable[BadRow]) -> str:
    """Of all that is asked and scored, in whatever order it was read."""
    rows = [
        [q.id, q.set, q.prompt, q.options, q.answer, q.segment, [song.key for song in (q.song, *q.more_songs)]]
        for q in questions
    ]
    rows += [[row.id, row.set, row.reason] for row in bad_rows]
    return text_digest("\n".join(sorted(json.dumps(row) for row in rows)))
