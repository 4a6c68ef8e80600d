"""What can be converted: released and stage folders, and parts of a model wherever they lie. Only headers are read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mufun_jax.config import DecoderConfig, EncoderConfig, ModelConfig
from mufun_jax.config_file import difference
from mufun_jax.convert.ctranslate2 import read_ctranslate2_whisper
from mufun_jax.convert.torch_pickle import read_pytorch_bin
from mufun_jax.errors import CheckpointError
from mufun_jax.weights.bounded_path import file_in
from mufun_jax.weights.hf_config import LARGEST, BaseModel, Origin, decoder_config, encoder_config, folder_config
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.json_object import read_json_object
from mufun_jax.weights.model_folder import CONFIG, open_model_folder
from mufun_jax.weights.safetensors_file import INDEX, SINGLE, read_folder, read_header, read_index
from mufun_jax.weights.stored_tensor import StoredTensor
from mufun_jax.weights.weight_table import RELEASED_PREFIX, Entry, check_tensors, tied_head, weight_table

PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
CTRANSLATE2 = "model.bin"
STAGE_FOLDERS = {"encoder": "vision_tower", "connector": "connector", "decoder": "language_model"}

# What may stand before the names of a part, and a tensor that every such part has.
_PREFIXES = {
    "encoder": (RELEASED_PREFIX["encoder"], "_vision_tower.", "model.encoder.", "encoder.", ""),
    "connector": (RELEASED_PREFIX["connector"], "_connector.", ""),
    "decoder": (RELEASED_PREFIX["decoder"], ""),
}
_MARKS = {"encoder": "conv1.weight", "connector": "linear1.weight", "decoder": "model.embed_tokens.weight"}
_FRONT_MATTER = 20_000  # bytes of a model card in which its licence is looked for
_WHISPER_DECODER = ("model.decoder.", "decoder.", "proj_out.")  # only the encoder of a Whisper is used


@dataclass(frozen=True)
class Part:
    """One part of a model: tensors by their names inside it, its config (empty for a connector), its folder."""

    tensors: Mapping[str, StoredTensor]
    values: dict[str, Any]
    folder: Path
    sizes_from: Path  # the file that says its sizes
    name: str
    kind: str


@dataclass(frozen=True)
class Source:
    """A whole model: sizes, tensors by released name, the config it came with, and the folder of its tokenizer."""

    kind: str
    config: ModelConfig
    tensors: Mapping[str, StoredTensor]
    origin: Origin
    folder: Path
    values: dict[str, Any] = field(default_factory=dict, repr=False)


def open_source(source: str | Path, taps: tuple[int, ...] | None = None) -> Source:
    """A released folder, one of ours, the authors' stage folders, or a model of the hub.

    Raises:
        CheckpointError, ConfigError: nothing of the kind is there, or it is damaged or contradicts itself.
    """
    folder = local_folder(source)
    if (folder / STAGE_FOLDERS["decoder"]).is_dir():
        return _open_stage(folder, taps)
    opened = open_model_folder(folder, taps)
    origin = opened.config.origin
    if not origin.base_models and not origin.stages:
        base = BaseModel(_display_name(source, folder, {}), tuple(RELEASED_PREFIX), license_of(folder))
        origin = Origin((base,))
    return Source("model folder", opened.config.model, opened.tensors, origin, folder, opened.config.values)


def _open_stage(folder: Path, taps: tuple[int, ...] | None) -> Source:
    parts = {part: _open_part_at(part, folder / name, name) for part, name in STAGE_FOLDERS.items()}
    values = read_json_object(file_in(folder, CONFIG)) if (folder / CONFIG).is_file() else {}
    if values:
        config = folder_config(values, str(folder / CONFIG), taps).model
        own = joined_config(parts["encoder"], parts["decoder"], parts["connector"], config.encoder.taps)
        changed = difference(own.decoder, config.decoder) or difference(own.encoder, config.encoder)
        if changed:
            raise CheckpointError(f"{folder}: its parts' configs contradict its {CONFIG}: {changed}")
    else:
        config = joined_config(parts["encoder"], parts["decoder"], parts["connector"], taps)
    tensors = named_as_released(parts)
    check_tensors(weight_table(config), tensors, str(folder), tied_head(config.decoder))
    origin = Origin((BaseModel(folder.resolve().name, tuple(RELEASED_PREFIX), license_of(folder)),))
    return Source("stage folders", config, tensors, origin, folder, values)


def open_part(part: str, source: str | Path) -> Part:
    """A Whisper or Qwen3 folder, a CTranslate2 Whisper, or a connector; the tensors are not yet held against sizes."""
    return _open_part_at(part, local_folder(source), source)


def _open_part_at(part: str, path: Path, source: str | Path) -> Part:
    """The part in a folder or file that is here; `source` is what it was asked for as."""
    if not path.exists():
        raise CheckpointError(f"{path}: no {part} here: there is no such folder; was it copied whole?")
    if part == "encoder" and (path.is_file() or _is_ctranslate2(path)):
        file = path if path.is_file() else file_in(path, CTRANSLATE2)
        tensors, values = read_ctranslate2_whisper(file)
        return Part(tensors, values, file.parent, file, _display_name(source, file.parent, {}), "CTranslate2 Whisper")
    values = {}
    if part != "connector":
        values = read_json_object(file_in(path, CONFIG))
    found = read_header(path) if path.is_file() else read_weights(path)
    tensors = _inside(part, found, path)
    return Part(tensors, values, path, path / CONFIG, _display_name(source, path, values), f"{part} folder")


def read_weights(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a folder: safetensors if it has them, else `pytorch_model.bin`, whole or in shards."""
    if any((folder / name).is_file() for name in (SINGLE, INDEX)):
        return read_folder(folder)
    if (folder / PICKLE).is_file():
        return read_pytorch_bin(file_in(folder, PICKLE))
    if (folder / PICKLE_INDEX).is_file():
        return read_index(file_in(folder, PICKLE_INDEX), read_pytorch_bin)
    raise CheckpointError(f"{folder}: no weights here: no {SINGLE}, index of shards or {PICKLE}")


def joined_config(
    encoder: Part, decoder: Part, connector: Part | None, taps: tuple[int, ...] | None = None
) -> ModelConfig:
    """The sizes of a model of these parts. A fresh connector is `blp_{taps}i_2x`, as the original's."""
    heard: EncoderConfig = encoder_config(encoder.values, str(encoder.sizes_from), taps)
    written: DecoderConfig = decoder_config(decoder.values, str(decoder.sizes_from))
    width = 2 * len(heard.taps) * heard.width
    if connector is not None:
        shape = connector.tensors["linear1.weight"].shape
        if len(shape) != 2 or not 0 < shape[0] <= LARGEST:
            raise CheckpointError(f"{connector.folder}: linear1.weight is {list(shape)}, no matrix of a connector")
        width = shape[0]
    return ModelConfig(heard, width, written)


def named_as_released(parts: Mapping[str, Part]) -> dict[str, StoredTensor]:
    """The tensors of several parts by released name."""
    return {
        RELEASED_PREFIX[part] + name: tensor
        for part, opened in parts.items()
        for name, tensor in opened.tensors.items()
    }


def present_entries(config: ModelConfig, tensors: Mapping[str, StoredTensor]) -> list[Entry]:
    """The table of a model, and the tied head's copy where the files hold one."""
    head = tied_head(config.decoder)
    return [*weight_table(config), *([head] if head and head.released_name in tensors else [])]


def license_of(folder: Path) -> str | None:
    """The licence that a folder's model card names in its first lines, as the hub reads them."""
    card = file_in(folder, "README.md")
    if not card.is_file():
        return None
    with card.open("rb") as file:
        front = file.read(_FRONT_MATTER).decode("utf-8", "replace").split("---")
    match = (
        re.search(r"^license: *['\"]?([\w.+-]+)", front[1], re.MULTILINE) if len(front) > 2 and not front[0] else None
    )
    return match[1] if match else None


def _is_ctranslate2(folder: Path) -> bool:
    return (
        (folder / CTRANSLATE2).is_file() and not (folder / PICKLE).is_file() and not any(folder.glob("*.safetensors"))
    )


def _inside(part: str, tensors: dict[str, StoredTensor], where: Path) -> dict[str, StoredTensor]:
    """Names inside the part. What else stands in the file keeps its name, and is found not to belong."""
    if part == "encoder":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_WHISPER_DECODER)}
    for prefix in _PREFIXES[part]:
        if prefix + _MARKS[part] in tensors:
            inside = {name.removeprefix(prefix): replace(tensor, name=name) for name, tensor in tensors.items()}
            if len(inside) < len(tensors):
                raise CheckpointError(f"{where}: a tensor is there twice, with and without {prefix!r} in its name")
            return inside
    raise CheckpointError(f"{where}: no {part} here: missing: the tensor {_MARKS[part]}")


def _display_name(source: str | Path, folder: Path, values: Mapping[str, Any]) -> str:
    """A name for the model card: the hub's, the one that the config gives, or the folder's; never a whole path."""
    given = values.get("_name_or_path")
    if isinstance(given, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", given):
        return given
    return str(source) if not Path(source).exists() else folder.resolve().name
