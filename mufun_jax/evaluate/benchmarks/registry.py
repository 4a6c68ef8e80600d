"""The benchmarks by name."""

from collections.abc import Callable, Sequence
from pathlib import Path

from mufun_jax.errors import UserError, nearest
from mufun_jax.evaluate.benchmark_question import Benchmark
from mufun_jax.evaluate.benchmarks.cmi_bench import read_cmi_bench
from mufun_jax.evaluate.benchmarks.hummusqa import read_hummusqa
from mufun_jax.evaluate.benchmarks.jsonl import read_jsonl
from mufun_jax.evaluate.benchmarks.mmar import read_mmar
from mufun_jax.evaluate.benchmarks.mmau import read_mmau
from mufun_jax.evaluate.benchmarks.mmau_pro import read_mmau_pro
from mufun_jax.evaluate.benchmarks.muchomusic import read_muchomusic
from mufun_jax.evaluate.benchmarks.mucue import read_mucue

READERS: dict[str, Callable[[Path, Sequence[str] | None], Benchmark]] = {
    "mucue": read_mucue,
    "mmau": read_mmau,
    "mmau-pro": read_mmau_pro,
    "mmar": read_mmar,
    "muchomusic": read_muchomusic,
    "cmi-bench": read_cmi_bench,
    "hummusqa": read_hummusqa,
    "jsonl": read_jsonl,
}
BENCHMARKS = tuple(READERS)


def read_benchmark(name: str, folder: Path, sets: Sequence[str] | None = None) -> Benchmark:
    """A benchmark from the folder that it was downloaded to, or some of its sets.

    Raises UserError for a name that is none, and where the folder does not hold that benchmark.
    """
    if name not in READERS:
        raise UserError(f"no benchmark {name!r}{nearest(name, list(READERS))}; there are {', '.join(READERS)}")
    return READERS[name](folder, sets)
