"""PyTorch's checkpoints in: one folder, or a Whisper and a Qwen3, written as a model folder, tensor by tensor."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mufun_jax.config import ModelConfig
from mufun_jax.convert.sources import (
    Source,
    joined_config,
    license_of,
    named_as_released,
    open_part,
    open_source,
    present_entries,
)
from mufun_jax.errors import CheckpointError
from mufun_jax.model.connector import Connector
from mufun_jax.text.tokenizer import copy_tokenizer
from mufun_jax.weights.bounded_path import file_in
from mufun_jax.weights.hf_config import BaseModel, Origin, released_values
from mufun_jax.weights.json_object import read_json_object
from mufun_jax.weights.model_folder import CONFIG, GENERATION_CONFIG, SHARD_BYTES, fitting_tokenizer, write_json
from mufun_jax.weights.safetensors_file import Advance, OutputTensor, copied, write_shards
from mufun_jax.weights.stored_tensor import DTYPES, StoredTensor
from mufun_jax.weights.weight_table import check_tensors, tied_head, weight_table
from mufun_jax.weights.written_folder import check_target, written_whole


@dataclass(frozen=True)
class Written:
    """What a conversion wrote."""

    folder: Path
    tensors: int
    nbytes: int

    @staticmethod
    def of(folder: Path, outputs: Sequence[OutputTensor]) -> "Written":
        return Written(folder, len(outputs), sum(output.nbytes for output in outputs))


def from_hf(
    source: str | Path,
    target: Path,
    *,
    taps: tuple[int, ...] | None = None,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    advance: Advance = lambda *_: None,
) -> Written:
    """Converts a released folder, the authors' stage folders, or a model of the hub, into a model folder.

    Every tensor keeps its dtype, or is rounded to `dtype`. `taps` name the tapped layers of an encoder whose layer
    set is not known.

    Raises:
        CheckpointError, ConfigError: what is wrong with the source or the target; nothing is left half-written.
    """
    check_target(target, overwrite=overwrite)
    opened = open_source(source, taps)
    keep_apart(target, opened.folder, opened.tensors.values())
    fitting_tokenizer(opened.folder, opened.config)
    outputs = stored_outputs(opened, dtype)
    return write_model_folder(opened, outputs, target, shard_bytes=shard_bytes, overwrite=overwrite, advance=advance)


def join(
    whisper: str | Path,
    qwen3: str | Path,
    target: Path,
    *,
    connector: str | Path | None = None,
    taps: tuple[int, ...] | None = None,
    seed: int = 0,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    advance: Advance = lambda *_: None,
) -> Written:
    """Joins a Whisper's encoder and a Qwen3 by a connector, fresh from `seed` or read: where a curriculum starts.

    Raises:
        CheckpointError, ConfigError: as `from_hf`.
    """
    check_target(target, overwrite=overwrite)
    parts = {"encoder": open_part("encoder", whisper), "decoder": open_part("decoder", qwen3)}
    if connector is not None:
        parts["connector"] = open_part("connector", connector)
    for part in parts.values():
        keep_apart(target, part.folder, part.tensors.values())
    config = joined_config(parts["encoder"], parts["decoder"], parts.get("connector"), taps)
    tensors = named_as_released(parts)
    for name, part in parts.items():
        table = [entry for entry in weight_table(config) if entry.part == name]
        head = tied_head(config.decoder) if name == "decoder" else None
        check_tensors(table, named_as_released({name: part}), str(part.folder), head)
    origin = Origin(tuple(BaseModel(part.name, (name,), license_of(part.folder)) for name, part in parts.items()))
    values = {"text_config": parts["decoder"].values, "vision_config": parts["encoder"].values}
    joined = Source("parts", config, tensors, origin, parts["decoder"].folder, values)
    fitting_tokenizer(joined.folder, config)
    outputs = stored_outputs(joined, dtype)
    if connector is None:
        outputs = [*outputs, *fresh_connector(config, seed, outputs[-1].dtype)]
    return write_model_folder(joined, outputs, target, shard_bytes=shard_bytes, overwrite=overwrite, advance=advance)


def stored_outputs(source: Source, dtype: str | None) -> list[OutputTensor]:
    """The tensors of a source in the table's order, each to be copied from its file."""
    wanted = DTYPES[dtype] if dtype else None
    entries = [
        entry for entry in present_entries(source.config, source.tensors) if entry.released_name in source.tensors
    ]
    return [copied(source.tensors[entry.released_name], entry.released_name, wanted) for entry in entries]


def fresh_connector(config: ModelConfig, seed: int, dtype: np.dtype[Any]) -> Iterator[OutputTensor]:
    """A connector drawn from `seed`, by the initialisation that training has."""
    features = jnp.zeros((1, 1, len(config.encoder.taps) * config.encoder.width))
    module = Connector(config.connector_width, config.decoder.width)
    params = nn.meta.unbox(jax.jit(module.init)(jax.random.key(seed), features)["params"])
    for entry in weight_table(config):
        if entry.part == "connector":
            _, layer, leaf = entry.leaf
            values = entry.to_torch(np.asarray(params[layer][leaf])).astype(dtype)
            yield OutputTensor(entry.released_name, entry.torch_shape, dtype, lambda values=values: [values])


def write_model_folder(
    source: Source,
    outputs: list[OutputTensor],
    target: Path,
    *,
    shard_bytes: int,
    overwrite: bool,
    advance: Advance,
    card: str | None = None,
) -> Written:
    """Writes a model folder whole or not at all: weights, config, tokenizer, and a model card if there is one."""
    with written_whole(target, overwrite=overwrite) as aside:
        write_shards(aside, outputs, shard_bytes, advance)
        dtype = outputs[-1].dtype.name
        write_json(aside / CONFIG, released_values(source.config, source.origin, dtype, source.values))
        copy_side_files(source, aside)
        if card is not None:
            write_card(aside, card)
    return Written.of(target, outputs)


def write_card(folder: Path, card: str) -> None:
    (folder / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")


def copy_side_files(source: Source, target: Path) -> None:
    """The tokenizer's files and the generation config, to the byte."""
    copy_tokenizer(source.folder, target)
    generation = file_in(source.folder, GENERATION_CONFIG)
    if generation.is_file():
        read_json_object(generation)  # no copy of what is no such file, or without end
        shutil.copyfile(generation, target / GENERATION_CONFIG)


def keep_apart(target: Path, folder: Path, tensors: Iterable[StoredTensor]) -> None:
    """Raises CheckpointError where replacing the target would remove the source, or a part of it."""
    place = Path(os.path.realpath(target))
    for path in {folder, *(tensor.path for tensor in tensors)}:
        for real in (Path(os.path.realpath(path)), Path(os.path.abspath(path))):
            if real == place or place in real.parents:
                raise CheckpointError(f"{target}: the source {path} lies there; name another target")
