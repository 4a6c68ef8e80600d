"""The loader: the manifests of a stage, mixed, shuffled, encoded, packed and batched, through Grain."""

from pathlib import Path

import grain

from data_pipelines.encode import Budget, ExampleEncoder
from data_pipelines.manifest import read_manifest
from data_pipelines.pack import PackRows
from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.errors import ConfigError
from mufun_jax.text.tokenizer import Tokenizer

_PREFETCHED_EXAMPLES = 64


def load_batches(
    run: RunConfig, stage: StageConfig, tokenizer: Tokenizer, seed: int, process: int = 0, processes: int = 1
) -> grain.DatasetIterator:
    """An endless iterator over this process's rows of each global batch.

    Each element is `{"batch": Batch, "examples": [R], "dropped_windows": [R]}`. Its state (`get_state`, Grain
    checkpoints) is exact: a restored iterator goes on with the batch that would have come next.

    Raises:
        ManifestError, AudioError: with the file and the entry; ConfigError: rows that do not divide.
    """
    if stage.rows % processes:
        raise ConfigError(f"{stage.rows} rows do not divide over {processes} processes; choose a multiple")
    budget = Budget(stage.positions, stage.windows, stage.targets)
    encoder = run.model.encoder
    encode = ExampleEncoder(tokenizer, encoder, budget, stage.template, stage.longest_audio)
    examples = mix_manifests(Path(run.data), stage.mixture, seed)[process::processes].map(encode)
    stream = examples.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=_PREFETCHED_EXAMPLES))
    rows = PackRows(stream, budget, encoder.window_samples, encoder.tokens_per_window)
    return iter(rows.batch(stage.rows // processes, drop_remainder=True))


def mix_manifests(folder: Path, mixture: dict[str, float], seed: int) -> grain.MapDataset:
    """Endless examples of several manifests (`name.json` or `name.jsonl`), drawn by weight.

    Each manifest is shuffled anew every epoch.
    """
    sources = []
    for number, name in enumerate(mixture):
        lines = folder / f"{name}.jsonl"
        examples = read_manifest(lines if lines.is_file() else folder / f"{name}.json")
        sources.append(grain.MapDataset.source(examples).seed(seed + number).shuffle().repeat())
    return grain.MapDataset.mix(sources, weights=list(mixture.values()))
