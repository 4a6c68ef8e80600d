"""Compiled programs are kept on the disk, so that the next command neither traces nor compiles them again.

JAX's own compilation cache spares the compiler only: tracing and lowering the programs of one question takes longer
than answering it. So on one device the executables themselves are kept, beside JAX's files.
"""

import hashlib
import os
import pickle
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

_SHORTEST = 0.1  # seconds of compiling; shorter ones are compiled again
_DIGEST = 32  # bytes before each executable
_SOURCE = Path(__file__).parents[1]

Arguments = dict[str, Any]


def keep_programs(folder: Path | None = None) -> Path | None:
    """Keeps them in a folder, by default `mufun_jax/compiled` in the user's cache; returns where.

    Where JAX has been told of another place already (JAX_COMPILATION_CACHE_DIR), that stays, and is all: None.
    """
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return None
    folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mufun_jax" / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:  # a home that may not be written: it is compiled each time
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return folder


@dataclass(frozen=True)
class Program:
    """An executable of the arguments' leaves: what is on the disk knows no classes of ours."""

    executable: Callable[..., Any]
    out: Any  # the structure of its result

    def __call__(self, **arguments: Any) -> Any:
        return jax.tree.unflatten(self.out, self.executable(**_leaves_of(arguments)))


@dataclass(frozen=True)
class KeptPrograms:
    """Executables of one device in a folder. What is there is run: only files of the user's own are read."""

    folder: Path
    device: Any

    def read(self, function: Any, fixed: Arguments, arguments: Arguments) -> Program | None:
        """The executable of a jitted function for such arguments; None where it is not there.

        `fixed` are its static arguments. All are by name.
        """
        path = self._path_of(function, fixed, arguments)
        written = _read_own(path)
        if written is None:
            return None
        serialized, in_tree, out_tree, out = pickle.loads(written)  # noqa: S301  our own, whole
        client, devices = self.device.client, [self.device]
        return Program(serialize_executable.deserialize_and_load(serialized, in_tree, out_tree, client, devices), out)

    def compile(self, function: Any, fixed: Arguments, arguments: Arguments, donated: tuple[str, ...]) -> Program:
        """Compiles a jitted function for such arguments, and keeps the executable."""
        trees = {name: jax.tree.structure(argument) for name, argument in arguments.items()}
        out = None

        def of_leaves(**leaves: list[Any]) -> list[Any]:
            nonlocal out
            found = function(**fixed, **{name: jax.tree.unflatten(trees[name], each) for name, each in leaves.items()})
            flat, out = jax.tree.flatten(found)
            return flat

        lowered = jax.jit(of_leaves, donate_argnames=donated).lower(**_leaves_of(arguments))
        with without_cache():  # what JAX's cache gave cannot be written once more: parts of it would be missing
            compiled = lowered.compile()
        path = self._path_of(function, fixed, arguments)
        aside = path.with_suffix(f".{os.getpid()}")
        try:
            aside.touch(mode=0o600)
            body = pickle.dumps((*serialize_executable.serialize(compiled), out))
            aside.write_bytes(_digest(body) + body)
            aside.replace(path)
        except (OSError, ValueError, NotImplementedError):  # a full disk; a device whose executables cannot be written
            aside.unlink(missing_ok=True)
        return Program(compiled, out)

    def _path_of(self, function: Any, fixed: Arguments, arguments: Arguments) -> Path:
        """Where an executable is kept: by all that makes it what it is."""
        leaves, tree = jax.tree.flatten(arguments)
        shapes = [(np.shape(leaf), str(leaf.dtype), getattr(leaf, "weak_type", False)) for leaf in leaves]
        said = hashlib.blake2b(digest_size=20)
        for part in (function.__name__, sorted(fixed.items()), tree, shapes, _machine(self.device), _options()):
            said.update(repr(part).encode())
        for path in sorted(_SOURCE.rglob("*.py")):
            said.update(path.read_bytes())
        return self.folder / f"{function.__name__}-{said.hexdigest()}"


def _read_own(path: Path) -> bytes | None:
    """What this user wrote to a file; None where it is not there, another may have written it, or it is damaged."""
    try:
        status = path.stat()
        data = path.read_bytes()
    except OSError:
        return None
    if status.st_mode & 0o022 or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        return None
    digest, body = data[:_DIGEST], data[_DIGEST:]
    return body if digest == _digest(body) else None


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST).digest()


def _leaves_of(arguments: Arguments) -> dict[str, list[Any]]:
    return {name: jax.tree.leaves(argument) for name, argument in arguments.items()}


@contextmanager
def without_cache() -> Iterator[None]:
    """Compiles without JAX's compilation cache."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()


def _machine(device: Any) -> tuple[Any, ...]:
    """What compiles, for what. A CPU's program knows its instructions and its number of cores."""
    versions = version("jax"), version("jaxlib"), device.client.platform_version
    if device.platform != "cpu":
        return *versions, device.device_kind
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    flags = {line for line in lines if line.startswith(("flags", "Features"))}
    return *versions, platform.machine(), os.cpu_count(), sorted(flags)


def _options() -> tuple[Any, ...]:
    """JAX's and the compiler's, where the folder lies aside."""
    options = {name: value for name, value in jax.config.values.items() if "cache" not in name}
    return sorted(options.items()), os.environ.get("XLA_FLAGS"), os.environ.get("LIBTPU_INIT_ARGS")
