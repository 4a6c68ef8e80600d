"""Whisper in CTranslate2's `model.bin`, the format of faster-whisper: where each tensor of the encoder lies.

The file, little-endian: u32 version, the name of the specification, u32 revision, u32 number of variables; for each
its name, u8 rank, u32 sizes, u8 type, u32 bytes, the values; then u32 number of aliases, each two names. A name is
u16 length (a final zero byte counted) and that many bytes. Queries, keys and values are one matrix, `linear_0`.
"""

import struct
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mufun_jax.errors import CheckpointError
from mufun_jax.weights.stored_tensor import DTYPES, StoredTensor

_VERSION = 6
_SPECIFICATION = "WhisperSpec"
_MOST_VARIABLES = 100_000
_TYPES = {0: np.dtype(np.float32), 1: np.dtype(np.int8), 2: np.dtype(np.int16), 3: np.dtype(np.int32)} | {
    4: np.dtype(np.float16),
    5: DTYPES["bfloat16"],
}
_WEIGHTS = {_TYPES[0], _TYPES[4], _TYPES[5]}

# Our names of tensors (those of transformers' WhisperEncoder) from theirs; {} is the number of a layer.
_NAMES = {
    "conv1.weight": "conv1/weight",
    "conv1.bias": "conv1/bias",
    "conv2.weight": "conv2/weight",
    "conv2.bias": "conv2/bias",
    "embed_positions.weight": "position_encodings/encodings",
    "layer_norm.weight": "layer_norm/gamma",
    "layer_norm.bias": "layer_norm/beta",
}
_LAYER_NAMES = {
    "self_attn_layer_norm.weight": "self_attention/layer_norm/gamma",
    "self_attn_layer_norm.bias": "self_attention/layer_norm/beta",
    "self_attn.out_proj.weight": "self_attention/linear_1/weight",
    "self_attn.out_proj.bias": "self_attention/linear_1/bias",
    "final_layer_norm.weight": "ffn/layer_norm/gamma",
    "final_layer_norm.bias": "ffn/layer_norm/beta",
    "fc1.weight": "ffn/linear_0/weight",
    "fc1.bias": "ffn/linear_0/bias",
    "fc2.weight": "ffn/linear_1/weight",
    "fc2.bias": "ffn/linear_1/bias",
}
_FUSED = "self_attention/linear_0"
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def read_ctranslate2_whisper(path: Path) -> tuple[dict[str, StoredTensor], dict[str, Any]]:
    """The encoder's tensors, by transformers' names, and a Whisper config of their sizes. The decoder is not used.

    Raises:
        CheckpointError: the file is damaged, holds another model or quantised weights, or lacks a tensor.
    """
    variables = _read_variables(path)
    prefix = "encoder/"
    left = {name.removeprefix(prefix): tensor for name, tensor in variables.items() if name.startswith(prefix)}

    def take(name: str) -> StoredTensor:
        if name not in left:
            raise CheckpointError(f"{path}: missing: the variable {prefix}{name}")
        tensor = left.pop(name)
        if tensor.dtype not in _WEIGHTS:
            raise CheckpointError(
                f"{path}: {prefix}{name} is {tensor.dtype}: quantised; take the float16 or float32 model"
            )
        return tensor

    heads = _scalar(path, left.pop("num_heads", None), f"{prefix}num_heads")
    layers = 1 + max((int(name.split("/")[0].split("_")[1]) for name in left if _is_layer(name)), default=-1)
    tensors = {ours: take(theirs) for ours, theirs in _NAMES.items()}
    for layer in range(layers):
        for ours, theirs in _LAYER_NAMES.items():
            tensors[f"layers.{layer}.{ours}"] = take(f"layer_{layer}/{theirs}")
        tensors |= _unfused(path, f"layers.{layer}.self_attn", take, f"layer_{layer}/{_FUSED}")
    if left:
        raise CheckpointError(f"{path}: does not belong there: the variable {prefix}{min(left)}")
    conv1, positions = tensors["conv1.weight"], tensors["embed_positions.weight"]
    if len(conv1.shape) != 3 or len(positions.shape) != 2 or not layers:
        raise CheckpointError(f"{path}: no Whisper encoder: conv1 is {conv1.shape}, positions {positions.shape}")
    up = tensors["layers.0.fc1.weight"]
    if len(up.shape) != 2:
        raise CheckpointError(f"{path}: no Whisper encoder: its first layer's ffn/linear_0 is {up.shape}")
    sizes = {
        "model_type": "whisper",
        "num_mel_bins": conv1.shape[1],
        "d_model": conv1.shape[0],
        "encoder_layers": layers,
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": up.shape[0],
        "max_source_positions": positions.shape[0],
    }
    return {name: replace(tensor, name=name) for name, tensor in tensors.items()}, sizes


def _is_layer(name: str) -> bool:
    first = name.split("/")[0]
    return first.startswith("layer_") and first[6:].isdecimal() and len(first) < 11


def _unfused(path: Path, ours: str, take: Any, theirs: str) -> dict[str, StoredTensor]:
    """Queries, keys and values out of one matrix and one bias. Whisper's keys have none: theirs must be zero."""
    weight, bias = take(f"{theirs}/weight"), take(f"{theirs}/bias")
    width = weight.shape[0] // 3 if weight.shape else 0
    if weight.shape != (3 * width, width) or bias.shape != (3 * width,):
        raise CheckpointError(f"{path}: {theirs} is {weight.shape} and {bias.shape}, not queries, keys and values")
    tensors = {}
    for number, name in enumerate(_PROJECTIONS):
        first, end = number * width, (number + 1) * width
        tensors[f"{ours}.{name}.weight"] = weight.rows(first, end)
        if name != "k_proj":
            tensors[f"{ours}.{name}.bias"] = bias.rows(first, end)
        elif np.any(bias.rows(first, end).read()):
            raise CheckpointError(f"{path}: {theirs}/bias: keys have a bias, which a Whisper encoder has not")
    return tensors


def _scalar(path: Path, variable: StoredTensor | None, name: str) -> int:
    if variable is None or prod(variable.shape) != 1 or not np.issubdtype(variable.dtype, np.integer):
        raise CheckpointError(f"{path}: missing: the number {name}")
    return int(variable.read().reshape(()))


def _read_variables(path: Path) -> dict[str, StoredTensor]:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            (version,) = _unpack(file, path, "<I")
            if version != _VERSION:
                raise CheckpointError(f"{path}: no CTranslate2 model of format {_VERSION} (it says {version})")
            specification = _name(file, path)
            if specification != _SPECIFICATION:
                raise CheckpointError(f"{path}: a CTranslate2 model of another kind, {specification!r}")
            _revision, count = _unpack(file, path, "<II")
            if count > _MOST_VARIABLES:
                raise CheckpointError(f"{path}: {count} variables; the file is damaged, fetch it again")
            variables: dict[str, StoredTensor] = {}
            for _ in range(count):
                variable = _variable(file, path, size)
                if variable.name in variables:
                    raise CheckpointError(f"{path}: {variable.name} is there twice")
                variables[variable.name] = variable
            return variables | _aliases(file, path, size, variables)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None


def _aliases(file: BinaryIO, path: Path, size: int, variables: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Second names: of tensors with the same values only one is stored."""
    (count,) = _unpack(file, path, "<I")
    aliases = {}
    for _ in range(count):
        alias, name = _name(file, path), _name(file, path)
        if alias in variables or alias in aliases or name not in variables:
            raise CheckpointError(f"{path}: {alias} is there twice, or stands for {name}, which is not there")
        aliases[alias] = variables[name]
    if file.tell() != size:
        raise CheckpointError(f"{path}: goes on after its end; the file is damaged, fetch it again")
    return aliases


def _variable(file: BinaryIO, path: Path, size: int) -> StoredTensor:
    name = _name(file, path)
    (rank,) = _unpack(file, path, "<B")
    shape = _unpack(file, path, f"<{rank}I")
    kind, nbytes = _unpack(file, path, "<BI")
    if kind not in _TYPES:
        raise CheckpointError(f"{path}: {name} is of type {kind}; the file is damaged, or newer than this reader")
    tensor = StoredTensor(name, path, file.tell(), shape, _TYPES[kind])
    if nbytes != tensor.nbytes or tensor.offset + nbytes > size:
        raise CheckpointError(f"{path}: {name}: {nbytes} bytes for {list(shape)}; the file is damaged or cut short")
    file.seek(nbytes, 1)
    return tensor


def _name(file: BinaryIO, path: Path) -> str:
    (length,) = _unpack(file, path, "<H")
    data = file.read(length)
    if len(data) != length or not data.endswith(b"\0"):
        raise CheckpointError(f"{path}: a name is damaged or cut short; fetch the file again")
    return data[:-1].decode("utf-8", "backslashreplace")


def _unpack(file: BinaryIO, path: Path, layout: str) -> tuple[int, ...]:
    data = file.read(struct.calcsize(layout))
    if len(data) != struct.calcsize(layout):
        raise CheckpointError(f"{path}: cut short; fetch the file again")
    return struct.unpack(layout, data)
