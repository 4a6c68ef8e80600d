"""The table covers every tensor of every preset and every leaf, once, in both directions."""

from math import prod

import jax
import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mufun_jax.errors import CheckpointError
from mufun_jax.model.presets import PRESETS, preset
from mufun_jax.weights.stored_tensor import StoredTensor
from mufun_jax.weights.weight_table import RELEASED_PREFIX, check_tensors, tied_head, weight_table
from tests.parity.reference_model import qwen3_config, whisper_config
from tests.tiny import param_shapes, tiny_decoder, tiny_model

MODELS = {**PRESETS, "tiny, untied": tiny_model(decoder=tiny_decoder(tied_embeddings=False))}


def torch_shapes(config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a released checkpoint, from transformers' own classes."""
    features = len(config.encoder.taps) * config.encoder.width
    with torch.device("meta"):
        parts = {
            "encoder": WhisperEncoder(whisper_config(config.encoder)),
            "connector": torch.nn.ModuleDict(
                {
                    "linear1": torch.nn.Linear(features, config.connector_width),
                    "linear2": torch.nn.Linear(config.connector_width, config.decoder.width),
                }
            ),
            "decoder": Qwen3ForCausalLM(qwen3_config(config.decoder)),
        }
    return {
        RELEASED_PREFIX[part] + name: tuple(value.shape)
        for part, module in parts.items()
        for name, value in module.named_parameters()
    }


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_is_in_the_table_once(name):
    config = MODELS[name]
    table = weight_table(config)
    assert {entry.released_name: entry.torch_shape for entry in table} == torch_shapes(config)
    assert len({entry.released_name for entry in table}) == len(table)


@pytest.mark.parametrize("name", MODELS)
def test_every_leaf_is_filled_once(name):
    config = MODELS[name]
    filled: dict[tuple[str, ...], list] = {}
    for entry in weight_table(config):
        filled.setdefault(entry.leaf, []).append((entry.layer, entry.shape))
    wanted = {tuple(k.key for k in path): leaf.shape for path, leaf in leaves_of(config)}
    assert set(filled) == set(wanted)
    for leaf, layers in filled.items():
        if layers[0][0] is None:
            assert layers == [(None, wanted[leaf])], leaf
        else:
            depth = wanted[leaf][0]
            assert sorted(layers) == [(layer, wanted[leaf][1:]) for layer in range(depth)], leaf


def leaves_of(config):
    return jax.tree_util.tree_leaves_with_path(param_shapes(config))


def test_mufun_8b_has_890_tensors():
    table = weight_table(preset("mufun_8b"))
    assert len(table) == 890
    assert sum(prod(entry.torch_shape) for entry in table) == 8_922_090_496


@pytest.mark.parametrize("name", ["nano", "tiny, untied"])
def test_there_and_back_and_any_part_of_it(name, tmp_path):
    """Each tensor holds its own numbering; each of our parts, read from a file, is that part of the whole."""
    rng = np.random.default_rng(0)
    for entry in weight_table(MODELS[name]):
        values = np.arange(prod(entry.torch_shape), dtype=np.float32).reshape(entry.torch_shape)
        path = tmp_path / "tensor"
        path.write_bytes(b"head" + values.tobytes())
        stored = StoredTensor(entry.released_name, path, 4, entry.torch_shape, values.dtype)
        ours = np.empty(entry.shape, np.float32)
        entry.read_into(ours, stored, tuple(slice(None) for _ in entry.shape))
        np.testing.assert_array_equal(entry.to_torch(ours), values)
        index = tuple(
            slice(first := int(rng.integers(size)), int(rng.integers(first, size)) + 1) for size in ours.shape
        )
        part = np.empty(ours[index].shape, np.float32)
        entry.read_into(part, stored, index)
        np.testing.assert_array_equal(part, ours[index], err_msg=entry.released_name)


def stored_model(tmp_path, config) -> dict[str, StoredTensor]:
    """All tensors in one file of zeros."""
    path = tmp_path / "zeros"
    largest = max(prod(entry.torch_shape) for entry in weight_table(config))
    path.write_bytes(bytes(4 * largest))
    dtype = np.dtype(np.float32)
    return {e.released_name: StoredTensor(e.released_name, path, 0, e.torch_shape, dtype) for e in weight_table(config)}


def test_what_is_missing_unknown_or_misshapen_is_named(tmp_path):
    config = MODELS["tiny, untied"]
    table, stored = weight_table(config), stored_model(tmp_path, config)
    check_tensors(table, stored, "model")
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    without = {key: value for key, value in stored.items() if key != name}
    with pytest.raises(CheckpointError, match=rf"^model: missing: the tensor {name} \[44, 28\]$"):
        check_tensors(table, without, "model")
    extra = stored | {name.replace("up_proj", "up_prog"): stored[name]}
    with pytest.raises(CheckpointError, match=r"does not belong there: the tensor .*up_prog.*did you mean .*up_proj"):
        check_tensors(table, extra, "model")
    turned = stored | {name: stored[name].viewed((28, 44))}
    with pytest.raises(CheckpointError, match=rf"{name} is \[28, 44\], but \[44, 28\] by the config"):
        check_tensors(table, turned, "model")


def test_a_tied_head_may_be_there_if_it_is_the_embedding(tmp_path):
    config = MODELS["nano"]
    table, stored, head = weight_table(config), stored_model(tmp_path, config), tied_head(config.decoder)
    assert head is not None
    assert tied_head(MODELS["tiny, untied"].decoder) is None
    embedding = stored["language_model.model.embed_tokens.weight"]
    check_tensors(table, stored, "model", head)
    check_tensors(table, stored | {head.released_name: embedding}, "model", head)
    with pytest.raises(CheckpointError, match="does not belong there"):
        check_tensors(table, stored | {head.released_name: embedding}, "model")
    other = tmp_path / "other"
    other.write_bytes(bytes(embedding.nbytes - 1) + b"\1")
    differs = StoredTensor(head.released_name, other, 0, embedding.shape, embedding.dtype)
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs from .*embed_tokens.weight.*tied"):
        check_tensors(table, stored | {head.released_name: differs}, "model", head)
