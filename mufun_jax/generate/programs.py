"""Compiled programs are kept on the disk, so that the next command need not compile them again."""

import os
from pathlib import Path

import jax

_SHORTEST = 0.1  # seconds of compiling; shorter ones are compiled again


def keep_programs(folder: Path | None = None) -> Path | None:
    """Keeps them in a folder, by default `mufun_jax/compiled` in the user's cache; returns where.

    Where JAX has been told of another place already (JAX_COMPILATION_CACHE_DIR), that stays.
    """
    told = jax.config.values["jax_compilation_cache_dir"]
    if told is not None:
        return Path(told)
    folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mufun_jax" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that may not be written: it is compiled each time
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder
