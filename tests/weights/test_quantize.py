"""int8: the numbers that are stored, the logits that come out, and the memory that is saved."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
import torch

from mufun_jax import MuFun
from mufun_jax.config import DecoderConfig, ModelConfig
from mufun_jax.errors import CheckpointError
from mufun_jax.generate.decode import Prompts, next_token_logits
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.model.presets import preset
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.model_folder import load_model, load_params, open_model_folder, save_model
from mufun_jax.weights.quantize import contracted_axes, quantized_bytes
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import small_model, write_released
from tests.tiny import param_shapes, random_params, tiny_encoder

# Four layers of width 1,024: Qwen3-0.6B's layer, with a head of its own and fewer words.
WIDE = ModelConfig(
    tiny_encoder(),
    34,
    DecoderConfig(
        vocab_size=512,
        width=1024,
        layers=4,
        heads=16,
        kv_heads=8,
        head_size=128,
        mlp_width=3072,
        tied_embeddings=False,
    ),
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> dict[str | None, MuFun]:
    """The random model as bfloat16, and with int8 matrices; both from one folder."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    save_model(folder, WIDE, random_params(WIDE), load_tokenizer("nano"))
    return {quantize: MuFun.from_pretrained(folder, quantize=quantize) for quantize in (None, "int8")}


def text_prompts(rows: int, length: int) -> Prompts:
    tokens = np.random.default_rng(1).integers(0, 512, (rows, length)).astype(np.int32)
    samples = np.zeros((rows, 0, WIDE.encoder.window_samples), np.float32)
    return Prompts(tokens, np.full_like(tokens, -1), np.full(rows, length, np.int32), samples)


def test_logits_of_int8_are_within_two_percent_of_bfloat16(wide, capsys):
    """Root mean square over all logits, relative to theirs; and the perplexity of one model's own text by the other."""
    prompts = text_prompts(8, 96)
    logits = {
        name: np.asarray(next_token_logits(model.model, model.params, prompts), np.float64)
        for name, model in wide.items()
    }
    error = np.sqrt(np.square(logits["int8"] - logits[None]).mean() / np.square(logits[None]).mean())
    perplexities = {name: perplexity(model) for name, model in wide.items()}
    change = perplexities["int8"] / perplexities[None] - 1
    with capsys.disabled():
        print(f"\nint8: logits {error:.2%} from bfloat16's; perplexity {perplexities[None]:.2f}, {change:+.2%}")
    assert 0 < error < 0.02
    assert abs(change) < 0.01


def perplexity(model: MuFun) -> float:
    """Of a few answers, in all their tokens. A random model finds each about as likely as any other."""
    scores = model.score("What is this?", options=["C major", "reel in G", "a slow hornpipe", "120 beats a minute"])
    return float(np.exp(-sum(score.log_probability for score in scores) / sum(score.tokens for score in scores)))


def test_stored_numbers(tmp_path):
    """Each output channel in steps of its own: 127 is reached in each; nothing is off by more than half a step."""
    config = small_model()
    folder = open_model_folder(write_released(tmp_path / "model", ReferenceModel(config)))
    mesh = inference_mesh()
    exact, stored = load_params(folder, mesh, "float32"), load_params(folder, mesh, "float32", "int8")
    quantised = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(exact):
        keys = tuple(key.key for key in path)
        contracted, found = contracted_axes(keys), at(stored, keys)
        if contracted is None:
            np.testing.assert_array_equal(found, leaf)
            continue
        quantised += 1
        assert isinstance(found, qwix.QArray)
        assert (found.qvalue.dtype, found.scale.dtype) == (jnp.int8, jnp.float32)
        largest = np.abs(np.asarray(leaf)).max(contracted, keepdims=True)
        np.testing.assert_allclose(found.scale, largest / 127.5, rtol=1e-6)
        assert (np.abs(np.asarray(found.qvalue, np.int32)).max(contracted) >= 127).all()
        assert (np.abs(found.qvalue * np.asarray(found.scale) - leaf) <= 0.5001 * found.scale).all()
    assert quantised == 8, "seven matrices of a layer, and the head"


def at(tree: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


@pytest.mark.parametrize("tied", [False, True])
def test_int8_products_are_those_of_the_stored_numbers(tied, tmp_path):
    """The whole model with int8 kernels equals the one with kernels of int8 x scale, in float32."""
    config = small_model(tied=tied)
    folder = write_released(tmp_path / "model", ReferenceModel(config))
    loaded = load_model(folder, inference_mesh(), "float32", "int8")
    plain = jax.tree.map(
        lambda leaf: qwix.dequantize(leaf) if isinstance(leaf, qwix.QArray) else leaf,
        loaded.params,
        is_leaf=lambda leaf: isinstance(leaf, qwix.QArray),
    )
    prompts = Prompts(
        np.arange(24, dtype=np.int32).reshape(2, 12),
        np.full((2, 12), -1, np.int32),
        np.full(2, 12, np.int32),
        np.zeros((2, 0, config.encoder.window_samples), np.float32),
    )
    model = MuFunModel(config)
    ours, expected = (np.asarray(next_token_logits(model, params, prompts)) for params in (loaded.params, plain))
    np.testing.assert_allclose(ours, expected, atol=2e-5 * np.abs(expected).max())


def test_the_8b_model_fits_one_chip_of_16_gb():
    """Weights as they are loaded; 390 s of keys and values take 0.6 GB more."""
    config = preset("mufun_8b")
    whole = sum(2 * leaf.size for leaf in jax.tree.leaves(param_shapes(config)))
    assert whole == 2 * 8_922_090_496
    stored = quantized_bytes(param_shapes(config), "bfloat16")
    assert stored < 10.4e9
    decoder = param_shapes(config)["decoder"]
    matrices = (
        sum(leaf.size for leaf in jax.tree.leaves(decoder["layers"]) if leaf.ndim > 2) + decoder["head"]["kernel"].size
    )
    assert whole - stored == pytest.approx(matrices, rel=2e-3), "a byte less for each number, and some scales"


def test_an_int8_model_is_not_saved(wide, tmp_path):
    with pytest.raises(CheckpointError, match="int8 model cannot be saved"):
        save_model(tmp_path / "x", WIDE, wide["int8"].params, wide["int8"].tokenizer)


def test_an_unknown_quantisation_is_refused(tmp_path):
    folder = write_released(tmp_path / "model", ReferenceModel(small_model()), torch.bfloat16)
    unchecked: Any = inspect.unwrap(load_model)  # as it is outside the tests, where no types are checked
    with pytest.raises(CheckpointError, match=r"quantize 'int3': only 'int8'"):
        unchecked(folder, inference_mesh(), "bfloat16", "int3")
    with pytest.raises(CheckpointError, match=r"dtype 'int8': 'float32' or 'bfloat16'"):
        unchecked(folder, inference_mesh(), "int8")
