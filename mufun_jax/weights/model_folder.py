"""A model folder: `config.json`, safetensors shards with their index, and the tokenizer's files.

There is one layout, the released checkpoints', with PyTorch's names and shapes: what `mufun train` writes and what
`MuFun.from_pretrained` reads is what any other program reads. The weight table is applied on the way to and from
memory: each device's part of each parameter is read from the files by itself, and no host holds a whole model.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mufun_jax.config import ModelConfig
from mufun_jax.errors import CheckpointError, ConfigError
from mufun_jax.text.tokenizer import TOKENIZER_FILES, Tokenizer, load_tokenizer
from mufun_jax.weights.bounded_path import file_in
from mufun_jax.weights.hf_config import FolderConfig, Origin, folder_config, released_values
from mufun_jax.weights.json_object import read_json_object
from mufun_jax.weights.params import Params, param_shardings
from mufun_jax.weights.quantize import contracted_axes, quantize_kernel
from mufun_jax.weights.safetensors_file import Advance, OutputTensor, read_folder, write_shards
from mufun_jax.weights.stored_tensor import DTYPES, StoredTensor
from mufun_jax.weights.weight_table import Entry, check_tensors, tied_head, weight_table
from mufun_jax.weights.written_folder import written_whole

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
SHARD_BYTES = 5_000_000_000  # of a file, at most, as Hugging Face's tools have it
Quantize = Literal["int8", None]
COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class ModelFolder:
    """A folder whose every tensor was found where the table wants it. `tensors` are by released name."""

    path: Path
    config: FolderConfig
    tensors: Mapping[str, StoredTensor]

    @property
    def table(self) -> tuple[Entry, ...]:
        return weight_table(self.config.model)


@dataclass(frozen=True)
class LoadedModel:
    """Sizes, parameters (in their shardings) and tokenizer of a model folder."""

    config: FolderConfig
    params: Params
    tokenizer: Tokenizer


# --- reading --------------------------------------------------------------------------------------------------------


def open_model_folder(folder: Path, taps: tuple[int, ...] | None = None) -> ModelFolder:
    """Reads the config and the headers of a folder, no data. `taps` are for an encoder whose layer set is not known.

    Raises:
        CheckpointError: no model there, or a file or tensor is missing, damaged, or does not belong.
        ConfigError: the config says what cannot be.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder}: no model here (no {CONFIG}); `mufun train`, `mufun demo` and `mufun convert from-hf` make one"
        )
    config = folder_config(read_json_object(file_in(folder, CONFIG)), str(folder / CONFIG), taps)
    tensors = read_folder(folder)
    check_tensors(weight_table(config.model), tensors, str(folder), tied_head(config.model.decoder))
    return ModelFolder(folder, config, tensors)


def load_model(
    folder: Path, mesh: Mesh, dtype: str, quantize: Quantize = None, advance: Advance = lambda *_: None
) -> LoadedModel:
    """Reads a model folder straight into its shardings; `advance` is called with bytes done, in all, and a note.

    Raises:
        CheckpointError, ConfigError: as `open_model_folder`; or the tokenizer is missing.
    """
    if quantize not in get_args(Quantize):
        raise CheckpointError(f"quantize {quantize!r}: only 'int8', or None for weights as they are")
    if dtype not in COMPUTE_DTYPES:
        raise CheckpointError(f"dtype {dtype!r}: {' or '.join(map(repr, COMPUTE_DTYPES))}")
    opened = open_model_folder(folder)
    tokenizer = fitting_tokenizer(folder, opened.config.model)
    return LoadedModel(opened.config, load_params(opened, mesh, dtype, quantize, advance), tokenizer)


def fitting_tokenizer(folder: Path, config: ModelConfig) -> Tokenizer:
    """The tokenizer of a folder. Raises CheckpointError where there is none, or the decoder has too few embeddings."""
    for name in TOKENIZER_FILES:
        file_in(folder, name)
    tokenizer, rows = load_tokenizer(folder), config.decoder.vocab_size
    if tokenizer.size > rows:
        raise CheckpointError(f"{folder}: the tokenizer has token {tokenizer.size - 1}, the decoder {rows} embeddings")
    return tokenizer


def load_params(
    folder: ModelFolder, mesh: Mesh, dtype: str, quantize: Quantize = None, advance: Advance = lambda *_: None
) -> Params:
    """The parameters in `dtype`, in their shardings; with `quantize`, the decoder's matrices as int8.

    Leaves are read one after the other, the largest first: each is whole in memory before it is quantised.
    """
    # One device holds all, and the model need not be traced to say which axis lies where.
    shardings = None if mesh.size == 1 else param_shardings(folder.config.model, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    leaves: dict[tuple[str, ...], list[Entry]] = {}
    for entry in folder.table:
        leaves.setdefault(entry.leaf, []).append(entry)
    sizes = {leaf: prod(_leaf_shape(entries)) for leaf, entries in leaves.items()}
    total, done = sum(sizes.values()) * DTYPES[dtype].itemsize, 0
    params: Params = {}
    for leaf in sorted(leaves, key=lambda leaf: -sizes[leaf]):
        advance(done, total, ".".join(leaf))
        sharding = whole if shardings is None else _at(shardings, leaf)
        read = _leaf_reader(leaves[leaf], folder.tensors, DTYPES[dtype])
        value = jax.make_array_from_callback(_split_shape(_leaf_shape(leaves[leaf]), sharding, leaf), sharding, read)
        contracted = contracted_axes(leaf) if quantize else None
        parent = params
        for key in leaf[:-1]:
            parent = parent.setdefault(key, {})
        parent[leaf[-1]] = value if contracted is None else quantize_kernel(value, contracted)
        done += sizes[leaf] * DTYPES[dtype].itemsize
    advance(total, total, "")
    return params


def _split_shape(shape: tuple[int, ...], sharding: NamedSharding, leaf: tuple[str, ...]) -> tuple[int, ...]:
    """The shape of a leaf, once it is known to split evenly."""
    try:
        sharding.shard_shape(shape)
    except ValueError:
        sizes = ", ".join(f"{axis} {size}" for axis, size in sharding.mesh.shape.items() if size > 1)
        raise ConfigError(
            f"{'.'.join(leaf)} {list(shape)} does not split evenly as {sharding.spec} over a mesh of {sizes}"
        ) from None
    return shape


def _leaf_shape(entries: list[Entry]) -> tuple[int, ...]:
    """The shape of a leaf; those of layers are stacked."""
    return entries[0].shape if entries[0].layer is None else (len(entries), *entries[0].shape)


def _leaf_reader(
    entries: list[Entry], tensors: Mapping[str, StoredTensor], dtype: np.dtype[Any]
) -> Callable[[Any], np.ndarray]:
    """A function from an index into a leaf to the values there, read from the files."""

    def read(index: tuple[slice, ...]) -> np.ndarray:
        ranges = [range(size)[part] for size, part in zip(_leaf_shape(entries), index, strict=True)]
        values = np.empty([len(part) for part in ranges], dtype)
        if entries[0].layer is None:
            entries[0].read_into(values, tensors[entries[0].released_name], index)
        else:
            for row, layer in enumerate(ranges[0]):
                assert entries[layer].layer == layer
                entries[layer].read_into(values[row], tensors[entries[layer].released_name], index[1:])
        return values

    return read


def _at(tree: Any, leaf: tuple[str, ...]) -> Any:
    for key in leaf:
        tree = tree[key]
    return tree


# --- writing --------------------------------------------------------------------------------------------------------


def save_model(
    folder: Path,
    config: ModelConfig,
    params: Params,
    tokenizer: Tokenizer,
    origin: Origin = Origin(),  # noqa: B008  immutable
    source: Mapping[str, Any] | None = None,
) -> None:
    """Writes a model folder, whole or not at all; a model that is there is replaced.

    On several hosts all must call it; each parameter is gathered by itself, a layer at a time, and the first host
    writes. `source` is the config of the folder that the model began from, if any: what it says beside is kept.
    """
    outputs = [_from_params(entry, _at(params, entry.leaf)) for entry in weight_table(config)]
    if jax.process_index():
        for output in outputs:
            for _ in output.blocks():
                pass
        return
    with written_whole(folder, overwrite=True) as aside:
        write_shards(aside, outputs, SHARD_BYTES, lambda *_: None)
        dtype = outputs[-1].dtype.name
        values = released_values(config, origin, dtype, source or {})
        write_json(aside / CONFIG, values)
        generation = {"eos_token_id": tokenizer.end_of_turn, "pad_token_id": tokenizer.padding, "do_sample": False}
        write_json(aside / GENERATION_CONFIG, generation)
        tokenizer.save(aside)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes an object with its keys in order."""
    path.write_text(json.dumps(values, indent=2) + "\n")


def _from_params(entry: Entry, leaf: Any) -> OutputTensor:
    if hasattr(leaf, "qvalue"):
        raise CheckpointError("an int8 model cannot be saved: load it without quantize")

    def blocks() -> Iterator[np.ndarray]:
        yield entry.to_torch(_gathered(leaf, entry.layer))

    return OutputTensor(entry.released_name, entry.torch_shape, np.dtype(leaf.dtype), blocks)


def _gathered(leaf: Any, layer: int | None) -> np.ndarray:
    """A whole leaf, or one layer of it, on every host."""
    if isinstance(leaf, np.ndarray):
        return leaf if layer is None else leaf[layer]
    everywhere = None if leaf.is_fully_addressable else NamedSharding(leaf.sharding.mesh, PartitionSpec())
    gather = _gather(everywhere)
    return np.asarray(gather(leaf, None if layer is None else jnp.int32(layer)))


@functools.cache
def _gather(everywhere: NamedSharding | None) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """One compiled program for all layers of a leaf."""

    def gather(leaf: jax.Array, layer: jax.Array | None) -> jax.Array:
        return leaf if layer is None else jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)

    return jax.jit(gather, out_shardings=everywhere)
