"""Conversion of a 10 GB checkpoint: peak memory, and throughput beside `cp` on the same disk in the same run.

    make bench                                  (or python -m tests.benchmarks.convert --folder DIR --rounds 3)

Needs 35 GB of disk. Wanted: at most 2.5 GiB resident, at least half the throughput of `cp -r`.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mufun_jax.errors import CheckpointError
from mufun_jax.model.presets import preset
from mufun_jax.progress import progress_bar
from mufun_jax.weights.hf_config import Origin, released_values
from mufun_jax.weights.model_folder import SHARD_BYTES
from mufun_jax.weights.safetensors_file import OutputTensor, write_shards
from mufun_jax.weights.stored_tensor import BLOCK, DTYPES
from mufun_jax.weights.weight_table import weight_table
from tests.qwen_tokenizer import write_qwen_tokenizer

MEMORY_LIMIT = 2.5 * 2**30
LEAST_SHARE_OF_CP = 0.5


def write_checkpoint(folder: Path) -> int:
    """`mufun_4b` in bfloat16, 9.5 GB, of random bits; returns its bytes."""
    folder.mkdir(parents=True)
    config = preset("mufun_4b")
    noise = np.random.default_rng(0).integers(0x3C00, 0x3F00, BLOCK // 2, np.uint16).view(DTYPES["bfloat16"])

    def blocks_of(size: int) -> Callable[[], list[np.ndarray]]:
        return lambda: [noise[: min(len(noise), size - start)] for start in range(0, size, len(noise))]

    outputs = [
        OutputTensor(entry.released_name, entry.torch_shape, noise.dtype, blocks_of(int(np.prod(entry.torch_shape))))
        for entry in weight_table(config)
    ]
    with progress_bar("Making a checkpoint", "bytes") as advance:
        write_shards(folder, outputs, SHARD_BYTES, advance)
    (folder / "config.json").write_text(json.dumps(released_values(config, Origin(), "bfloat16", {})))
    write_qwen_tokenizer(folder)
    return sum(output.nbytes for output in outputs)


def timed(command: list[str], target: Path) -> tuple[float, int]:
    """Seconds and peak resident bytes of a command that writes `target`, from and to a disk without pending writes."""
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise CheckpointError(f"{command} failed with status {status}")
    return seconds, usage.ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="mufun-bench-") as name:
        source, target = Path(name) / "source", Path(name) / "target"
        total = write_checkpoint(source)
        mufun = [sys.executable, "-m", "mufun_jax.cli", "convert"]
        commands = {
            "cp -r": ["cp", "-r", str(source), str(target)],
            "from-hf": [*mufun, "from-hf", str(source), str(target)],
            "to-hf": [*mufun, "to-hf", str(source), str(target)],
            "to-hf float32": [*mufun, "to-hf", str(source), str(target), "--dtype", "float32"],
        }
        results = {what: [] for what in commands}
        for _ in range(arguments.rounds):
            for what, command in commands.items():
                results[what].append(timed(command, target))
    copied = statistics.median(seconds for seconds, _ in results["cp -r"])
    failed = False
    print(f"{total / 1e9:.2f} GB, median of {arguments.rounds} rounds")
    for what, rounds in results.items():
        seconds, peak = statistics.median(s for s, _ in rounds), max(peak for _, peak in rounds)
        written = 2 if what.endswith("float32") else 1
        share = written * copied / seconds
        print(
            f"{what:<14} {seconds:6.1f} s   {written * total / seconds / 1e6:6.0f} MB/s written   "
            f"{share:5.2f} of cp   peak {peak / 2**30:5.2f} GiB"
        )
        failed |= peak > MEMORY_LIMIT or share < LEAST_SHARE_OF_CP
    if failed:
        sys.exit("over 2.5 GiB, or under half of cp")


if __name__ == "__main__":
    main()
