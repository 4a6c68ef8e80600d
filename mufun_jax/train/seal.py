"""Checksums of the files of a checkpoint, written once it is complete: so damage is found before anything is read.

Each process seals its share of the files, in `seal-I-of-N.json`: the SHA-256 of what follows, then sizes and SHA-256s.
"""

import hashlib
import json
import re
from pathlib import Path

_SEAL = re.compile(r"seal-(\d{1,6})-of-(\d{1,6})\.json")
_CHUNK = 2**20  # bytes read at a time
_LARGEST_SEAL = 2**28  # bytes


def write_seal(folder: Path, process: int, processes: int) -> None:
    """Seals the share of one process. The seal appears whole or not at all."""
    files = {
        name: [(folder / name).stat().st_size, _sha256(folder / name)] for name in _files(folder)[process::processes]
    }
    text = json.dumps(files)
    aside = folder / f".seal-{process}"
    aside.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}", encoding="utf-8")
    aside.rename(folder / f"seal-{process}-of-{processes}.json")


def is_sealed(folder: Path) -> bool:
    """Whether there is any seal. Without one the folder may be whole: a run was killed before it could seal it."""
    return any(_SEAL.fullmatch(path.name) for path in folder.iterdir())


def find_damage(folder: Path, process: int = 0, processes: int = 1) -> str | None:
    """The first fault in a share of a sealed folder's files, with the file's name; None where there is none.

    The seals themselves are checked by every process.
    """
    seals = {path.name: path for path in sorted(folder.iterdir()) if _SEAL.fullmatch(path.name)}
    counts = {int(name.rpartition("-")[2].removesuffix(".json")) for name in seals}
    if len(counts) != 1:
        return f"has seals of {sorted(counts)} processes"
    sealed: dict[str, list] = {}
    for number in range(counts.pop()):
        name = f"seal-{number}-of-{len(seals)}.json"
        if name not in seals:
            return f"{name} is missing"
        files = _read_seal(seals[name])
        if files is None:
            return f"{name} is damaged"
        sealed |= files
    for name in sorted(sealed)[process::processes]:
        size, digest = sealed[name]
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        found = path.stat().st_size
        if found != size:
            return f"{name} has {found} bytes, of {size}"
        if _sha256(path) != digest:
            return f"{name} is not as it was written"
    return None


def _read_seal(path: Path) -> dict[str, list] | None:
    """Its files, or None where it is not as it was written. What names a file elsewhere is not believed either."""
    if path.stat().st_size > _LARGEST_SEAL:
        return None
    digest, _, text = path.read_bytes().partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    files = json.loads(text)
    inside = all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in files)
    return files if inside else None


def _files(folder: Path) -> list[str]:
    """All files below a folder but seals, sorted."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not _SEAL.fullmatch(name) and not name.startswith(".seal-"))


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()
