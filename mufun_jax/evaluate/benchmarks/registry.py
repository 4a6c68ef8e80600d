"""The benchmarks by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.benchmark_question import Benchmark
from mufun_jax.evaluate.benchmarks.mucue import read_mucue

READERS: dict[str, Callable[[Path, Sequence[str] | None], Benchmark]] = {
    "mucue": read_mucue,
}
BENCHMARKS = tuple(READERS)


def read_benchmark(name: str, folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """A benchmark from the folder that it was downloaded to, or some of its sets.

    Raises UserError for a name that is none, and where the folder does not hold that benchmark.
    """
    if name not in READERS:
        raise UserError(f"no benchmark {name!r}{nearest(name, list(READERS))}; there are {', '.join(READERS)}")
    return READERS[name](folder, sets)
