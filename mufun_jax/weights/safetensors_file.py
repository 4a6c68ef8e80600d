"""safetensors files: where each tensor of a folder lies, and shards written as a stream.

The format (github.com/huggingface/safetensors): eight bytes with the length of a JSON header, the header, the data.
The `safetensors` package maps whole files into memory and writes from memory only; converting in little memory needs
neither, so headers are read and written here, and nothing but plain reads and writes touches the data.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mufun_jax.errors import CheckpointError
from mufun_jax.weights.bounded_path import file_in
from mufun_jax.weights.json_object import SIZE_LIMIT, parse_json_object, read_json_object
from mufun_jax.weights.stored_tensor import DTYPES, LARGEST_AXIS, MOST_AXES, StoredTensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_CODES = {DTYPES[name]: code for code, name in _DTYPES.items()}
_SHARD_SUFFIXES = (".safetensors", ".bin")
_LONGEST_NAME = 200  # characters of a file name
_LENGTH = struct.Struct("<Q")

Advance = Callable[..., None]  # (bytes done, bytes in all, note)


# --- reading -------------------------------------------------------------------------------------------------------


def read_folder(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder with `model.safetensors`, or with shards and their index.

    Raises:
        CheckpointError: no such files; or a shard is absent, damaged, or not what the index says.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        raise CheckpointError(f"{folder}: has both {SINGLE} and {INDEX}; remove the one that is not meant")
    if single.is_file():
        return read_header(file_in(folder, SINGLE))
    if not index.is_file():
        raise CheckpointError(f"{folder}: no {SINGLE} here, nor {INDEX}; was the folder copied whole?")
    return read_index(file_in(folder, INDEX), read_header)


def read_index(index: Path, read_shard: Callable[[Path], dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """Every tensor of the shards that an index names, each in the shard that the index says."""
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: has no weight_map from tensors to files")
    for name, shard in weight_map.items():
        is_name = isinstance(shard, str) and len(shard) <= _LONGEST_NAME and Path(shard).name == shard
        if not is_name or not shard.endswith(_SHARD_SUFFIXES):
            raise CheckpointError(f"{index}: {name} is said to be in {shard!r}, which is no file name")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(weight_map.values())):
        path = file_in(index.parent, shard)
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file, though {index.name} names it; was the folder copied whole?")
        for name, tensor in read_shard(path).items():
            if name in tensors:
                raise CheckpointError(f"{path}: {name} is there twice: {tensors[name].path.name} has it too")
            if weight_map.get(name) != shard:
                raise CheckpointError(f"{path}: holds {name}, which {index.name} does not say")
            tensors[name] = tensor
    absent = next((name for name in weight_map if name not in tensors), None)
    if absent is not None:
        raise CheckpointError(
            f"{index.parent / weight_map[absent]}: has no tensor {absent}, though {index.name} says so"
        )
    return tensors


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Where each tensor of one file lies. The whole file must be accounted for, without gaps or overlaps."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(_LENGTH.size)
            length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
            if not 2 <= length <= min(size - _LENGTH.size, SIZE_LIMIT):
                raise CheckpointError(f"{path}: no safetensors file, or cut short: a header of {length} bytes")
            header = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    entries = parse_json_object(header, f"{path}: header")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: header: __metadata__ is not a map from words to words")
    start = _LENGTH.size + length
    tensors = [_located(path, start, name, entry) for name, entry in entries.items()]
    end = start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end:
            raise CheckpointError(f"{path}: {tensor.name} begins at byte {tensor.offset}, not at {end} as it must")
        end += tensor.nbytes
    if end != size:
        raise CheckpointError(f"{path}: is {size} bytes long, its tensors end at {end}; fetch it again")
    return {tensor.name: tensor for tensor in tensors}


def _located(path: Path, start: int, name: str, entry: Any) -> StoredTensor:
    where = f"{path}: header: {name}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: must have dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise CheckpointError(f"{where}: dtype {code!r}; weights are {', '.join(_DTYPES)}")
    if not _are_sizes(shape):
        raise CheckpointError(f"{where}: shape {shape!r}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{where}: data_offsets {offsets!r}")
    tensor = StoredTensor(name, path, start + offsets[0], tuple(shape), DTYPES[_DTYPES[code]])
    if offsets[1] - offsets[0] != tensor.nbytes:
        raise CheckpointError(f"{where}: {offsets[1] - offsets[0]} bytes for {code} {shape}, {tensor.nbytes} needed")
    return tensor


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= MOST_AXES
        and all(type(value) is int and 0 <= value < LARGEST_AXIS for value in values)
    )


# --- writing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutputTensor:
    """A tensor to write: `blocks()` yields its values in order, in `dtype`, a block at a time."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Callable[[], Iterable[np.ndarray]]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def renamed(self, name: str) -> "OutputTensor":
        return replace(self, name=name)


def copied(tensor: StoredTensor, name: str, dtype: np.dtype[Any] | None = None) -> OutputTensor:
    """A stored tensor under another name, in its own dtype or rounded to another."""
    dtype = dtype or tensor.dtype

    def blocks() -> Iterator[np.ndarray]:
        for block in tensor.flat_blocks():
            yield block if block.dtype == dtype else block.astype(dtype)

    return OutputTensor(name, tensor.shape, dtype, blocks)


def write_shards(folder: Path, tensors: Sequence[OutputTensor], shard_bytes: int, advance: Advance) -> None:
    """Writes shards of at most `shard_bytes` (more only for one larger tensor), and their index.

    `advance` is called with the bytes written, the bytes in all, and how many tensors that is.
    """
    shards = _shards(tensors, shard_bytes)
    files = [f"model-{number + 1:05}-of-{len(shards):05}.safetensors" for number in range(len(shards))]
    total = sum(tensor.nbytes for tensor in tensors)
    done = written = 0
    advance(0, total, f"0 of {len(tensors)} tensors")
    for file, shard in zip(files, shards, strict=True):
        with (folder / file).open("wb", buffering=0) as output:
            _write_fully(output, _header(shard))
            for tensor in shard:
                before = done
                for block in tensor.blocks():
                    assert block.dtype == tensor.dtype, (tensor.name, block.dtype, tensor.dtype)
                    data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
                    _write_fully(output, data)
                    done += len(data)
                    advance(done, total, f"{written} of {len(tensors)} tensors")
                assert done - before == tensor.nbytes, (tensor.name, done - before, tensor.nbytes)
                written += 1
            os.fsync(output.fileno())  # on the disk before the folder gets its name: whole even if power fails
            advance(done, total, f"{written} of {len(tensors)} tensors")
    weight_map = {tensor.name: file for file, shard in zip(files, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def _shards(tensors: Sequence[OutputTensor], shard_bytes: int) -> list[list[OutputTensor]]:
    shards: list[list[OutputTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _header(tensors: Sequence[OutputTensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses a file that does not say so
    offset = 0
    for tensor in tensors:
        offsets = [offset, offset + tensor.nbytes]
        entries[tensor.name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        offset = offsets[1]
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # data begins on a multiple of eight bytes
    return _LENGTH.pack(len(header)) + header


def _write_fully(output: Any, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[output.write(view) :]
