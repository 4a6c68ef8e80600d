"""What lies in a folder of weights: its kind, sizes, parts and files, once every tensor has been found its place."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from mufun_jax.config_file import to_json
from mufun_jax.convert.sources import (
    CTRANSLATE2,
    STAGE_FOLDERS,
    named_as_released,
    open_part,
    open_source,
    present_entries,
)
from mufun_jax.errors import CheckpointError
from mufun_jax.weights.hf_config import MODEL_TYPE, Origin, decoder_config, encoder_config
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.json_object import read_json_object
from mufun_jax.weights.model_folder import CONFIG
from mufun_jax.weights.stored_tensor import StoredTensor
from mufun_jax.weights.weight_table import (
    RELEASED_PREFIX,
    Entry,
    check_tensors,
    decoder_table,
    encoder_table,
    tied_head,
)


@dataclass(frozen=True)
class TensorRow:
    """A tensor in its file, and the parameter that it is (a layer of)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    file: str
    parameter: str
    layer: int | None


@dataclass(frozen=True)
class Inspection:
    """A folder of weights in which nothing is missing, misshapen or left over."""

    kind: str
    folder: str
    sizes: dict[str, Any]
    tensors: tuple[TensorRow, ...] = field(repr=False)
    nbytes: int
    origin: Origin

    @property
    def parts(self) -> dict[str, dict[str, Any]]:
        """For each part: number of tensors, parameters (a tied head's copy not counted again), bytes and dtypes."""
        rows = {}
        for part in RELEASED_PREFIX:
            own = [row for row in self.tensors if row.parameter.split(".")[0] == part]
            if own:
                distinct = {(row.parameter, row.layer): prod(row.shape) for row in own}
                dtypes = sorted({row.dtype for row in own})
                rows[part] = {"tensors": len(own), "parameters": sum(distinct.values()), "dtypes": dtypes}
        return rows

    @property
    def parameters(self) -> int:
        return sum(part["parameters"] for part in self.parts.values())

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "parts": self.parts, "parameters": self.parameters}


def inspect_folder(source: str | Path, taps: tuple[int, ...] | None = None) -> Inspection:
    """A model folder, stage folders, a Whisper, a Qwen3, or a CTranslate2 Whisper, each tensor checked.

    Raises:
        CheckpointError, ConfigError: the first thing that is wrong.
    """
    path = local_folder(source)
    if path.is_dir() and not any((path / name).exists() for name in (CONFIG, CTRANSLATE2, STAGE_FOLDERS["decoder"])):
        raise CheckpointError(f"{path}: no model here: no {CONFIG}, and no other weights that are known")
    kind = read_json_object(path / CONFIG).get("model_type") if (path / CONFIG).is_file() else None
    if kind == MODEL_TYPE or (path / STAGE_FOLDERS["decoder"]).is_dir():
        opened = open_source(source, taps)
        rows = _rows(present_entries(opened.config, opened.tensors), opened.tensors)
        size = sum(tensor.nbytes for tensor in opened.tensors.values())
        return Inspection(opened.kind, str(path), to_json(opened.config), rows, size, opened.origin)
    parts = {"qwen3": "decoder", "whisper": "encoder", None: "encoder"}
    part = parts.get(kind) if kind is None or isinstance(kind, str) else None
    if part is None:
        raise CheckpointError(f"{path / CONFIG}: model_type {kind!r}: no MuFun, Whisper or Qwen3")
    return _inspect_part(part, source, taps)


def _inspect_part(part: str, source: str | Path, taps: tuple[int, ...] | None) -> Inspection:
    opened = open_part(part, source)
    where = str(opened.sizes_from)
    head = None
    if part == "encoder":
        config = encoder_config(opened.values, where, taps)
        table = list(encoder_table(config))
    else:
        config = decoder_config(opened.values, where)
        table, head = list(decoder_table(config)), tied_head(config)
    tensors = named_as_released({part: opened})
    check_tensors(table, tensors, str(opened.folder), head)
    entries = [*table, *([head] if head and head.released_name in tensors else [])]
    size = sum(tensor.nbytes for tensor in tensors.values())
    return Inspection(opened.kind, str(opened.folder), to_json(config), _rows(entries, tensors), size, Origin())


def _rows(entries: Sequence[Entry], tensors: Mapping[str, StoredTensor]) -> tuple[TensorRow, ...]:
    rows = []
    for entry in entries:
        tensor = tensors[entry.released_name]
        leaf = ".".join(entry.leaf)
        rows.append(TensorRow(tensor.name, tensor.shape, tensor.dtype.name, tensor.path.name, leaf, entry.layer))
    return tuple(rows)
