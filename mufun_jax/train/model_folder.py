"""A model folder: what inference needs of a training run. `config.json`, `tokenizer/` and `params/`."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.linen import meta
from jax.sharding import Mesh

from mufun_jax.config import ModelConfig, to_json, validate
from mufun_jax.errors import CheckpointError
from mufun_jax.text.tokenizer import Tokenizer, load_tokenizer
from mufun_jax.train.state import Params, abstract_params, param_shardings

_FORMAT = 1


@dataclass(frozen=True)
class LoadedModel:
    """Sizes, parameters (in their shardings) and tokenizer of a model folder."""

    config: ModelConfig
    params: Params
    tokenizer: Tokenizer


def save_model(folder: Path, config: ModelConfig, params: Params, tokenizer: Tokenizer) -> None:
    """Writes a model folder, whole or not at all; one that is there is replaced."""
    aside = folder.with_name(folder.name + ".partial")
    if jax.process_index() == 0:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        (aside / "config.json").write_text(json.dumps({"format": _FORMAT, "model": to_json(config)}, indent=1) + "\n")
        tokenizer.save(aside / "tokenizer")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(aside.absolute() / "params", params)
    if jax.process_index() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


def load_model(folder: Path, mesh: Mesh, dtype: str) -> LoadedModel:
    """Reads a model folder straight into its shardings.

    Raises:
        CheckpointError: the folder, or a file in it, is missing or does not fit.
    """
    config = read_model_config(folder)
    target = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, np.dtype(dtype), sharding=sharding),
        meta.unbox(abstract_params(config)),
        param_shardings(config, mesh),
    )
    if not (folder / "params").is_dir():
        raise CheckpointError(f"{folder}: has no folder params; was it copied whole?")
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            params = checkpointer.restore(folder.absolute() / "params", target)
        except (ValueError, KeyError, FileNotFoundError) as error:
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"{folder / 'params'}: does not fit its config.json: {first_line}") from error
    return LoadedModel(config, params, load_tokenizer(folder / "tokenizer"))


def read_model_config(folder: Path) -> ModelConfig:
    """The sizes recorded in a model folder. Raises CheckpointError where it is none."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no model here (no config.json); `mufun train` and `mufun demo` make one")
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("format") != _FORMAT or "model" not in values:
        raise CheckpointError(f"{path}: not a mufun_jax model of format {_FORMAT}")
    return validate(ModelConfig, values["model"], str(path))
