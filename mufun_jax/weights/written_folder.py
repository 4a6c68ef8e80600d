"""Folders that appear whole or not at all: written aside, then renamed."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mufun_jax.errors import CheckpointError

# What a model folder, or one with its parts for transformers, consists of: no other folder is ever replaced.
_MARKS = {"model.safetensors.index.json", "qwen3/"}
_FILES = (
    r"config\.json|generation_config\.json|README\.md|model\.safetensors\.index\.json|model-\d+-of-\d+\.safetensors|"
    r"tokenizer\.json|vocab\.json|merges\.txt|tokenizer_config\.json|added_tokens\.json|special_tokens_map\.json"
)
_WRITTEN = re.compile(rf"{_FILES}|qwen3/|whisper_encoder/|connector/")


@contextmanager
def written_whole(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yields an empty folder beside `target`; it takes the target's place when the block ends, and goes if it fails.

    Raises:
        CheckpointError: the target exists and may not be overwritten, or the disk cannot be written (or is full).
    """
    target = Path(os.path.abspath(target))
    check_target(target, overwrite=overwrite)
    aside = target.with_name(f".{target.name}.mufun-partial")
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
    target = Path(os.path.abspath(target))
    if not target.name:
        raise CheckpointError(f"{target}: cannot be a target; name a folder in it")
    try:
        if not target.exists() and _old(target).exists():
            _old(target).rename(target)  # a run was killed between taking the old folder away and putting the new one
        if not target.exists() and not target.is_symlink():
            return
        if not target.is_dir() or target.is_symlink():
            raise CheckpointError(f"{target}: is no folder; name another target")
        names = {path.name + ("/" if path.is_dir() else "") for path in target.iterdir()}
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be looked at: {error.strerror or error}") from None
    if not names:
        return
    if not overwrite:
        raise CheckpointError(f"{target}: is there already; name another folder, or replace it with --overwrite")
    foreign = sorted(name for name in names if not _WRITTEN.fullmatch(name))
    if foreign or not names & _MARKS:
        what = f"holds {foreign[0]}" if foreign else "has no weights"
        raise CheckpointError(
            f"{target}: is no model folder ({what}), so it is not replaced; remove it yourself if you mean to"
        )


def _replace(aside: Path, target: Path) -> None:
    """Puts the new folder in the place of the old one, which is put back if that fails."""
    old = _old(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    try:
        aside.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _old(target: Path) -> Path:
    """Where a folder lies while it is replaced."""
    return target.with_name(f".{target.name}.mufun-replaced")
