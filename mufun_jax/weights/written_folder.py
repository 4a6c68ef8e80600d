"""Folders that appear whole or not at all: written aside, then renamed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mufun_jax.errors import CheckpointError


@contextmanager
def written_whole(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder beside `target`; it takes the target's place when the block ends, and goes if it fails.

    Raises:
        CheckpointError: the target exists and may not be overwritten, or the disk cannot be written (or is full).
    """
    check_target(target, overwrite=overwrite)
    aside = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(aside, ignore_errors=True)  # of a run that was killed
        aside.mkdir(parents=True)
        yield aside
        _replace(aside, target)
    except OSError as error:
        where = f"{target}: cannot be written"
        raise CheckpointError(f"{where}: {error.strerror or error}; nothing is left of it there") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raises CheckpointError unless `target` is free, empty, or a model folder that may be overwritten."""
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise CheckpointError(f"{target}: is no folder; name another target")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{target}: is there already; name another folder, or replace it with --overwrite")
    if not any((target / name).exists() for name in ("config.json", "qwen3/config.json")):
        raise CheckpointError(f"{target}: is no model folder, so it is not replaced; remove it yourself if you mean to")


def _replace(aside: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)
