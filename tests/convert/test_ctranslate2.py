"""CTranslate2's Whisper files, written by CTranslate2's own rules, against the Whisper that went in."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mufun_jax.convert.ctranslate2 import read_ctranslate2_whisper
from mufun_jax.convert.from_torch import join
from mufun_jax.errors import CheckpointError
from mufun_jax.weights.model_folder import open_model_folder
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import released_tensors, small_model, write_qwen3

TYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    return ReferenceModel(small_model())


def variables_of(reference: ReferenceModel, dtype: str) -> dict[str, np.ndarray]:
    """What CTranslate2's converter makes of an encoder (its `WhisperLoader`), and a decoder's tensor beside it."""
    tensors = {name: value.detach().numpy().astype(dtype) for name, value in reference.encoder.named_parameters()}
    found = {
        "decoder/embeddings/weight": np.zeros((7, 24), dtype),
        "encoder/num_heads": np.int16(reference.config.encoder.heads),
        "encoder/position_encodings/encodings": tensors["embed_positions.weight"],
        "encoder/layer_norm/gamma": tensors["layer_norm.weight"],
        "encoder/layer_norm/beta": tensors["layer_norm.bias"],
    }
    for name in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            found[f"encoder/{name}/{kind}"] = tensors[f"{name}.{kind}"]
    for number in range(reference.config.encoder.layers):
        theirs, ours = f"encoder/layer_{number}", f"layers.{number}"
        weights = [tensors[f"{ours}.self_attn.{name}_proj.weight"] for name in "qkv"]
        query, value = (tensors[f"{ours}.self_attn.{name}_proj.bias"] for name in "qv")
        found[f"{theirs}/self_attention/linear_0/weight"] = np.concatenate(weights)
        found[f"{theirs}/self_attention/linear_0/bias"] = np.concatenate([query, np.zeros_like(query), value])
        for a, b in (
            ("self_attention/linear_1", "self_attn.out_proj"),
            ("ffn/linear_0", "fc1"),
            ("ffn/linear_1", "fc2"),
        ):
            for kind in ("weight", "bias"):
                found[f"{theirs}/{a}/{kind}"] = tensors[f"{ours}.{b}.{kind}"]
        for a, b in (("self_attention", "self_attn_layer_norm"), ("ffn", "final_layer_norm")):
            found[f"{theirs}/{a}/layer_norm/gamma"] = tensors[f"{ours}.{b}.weight"]
            found[f"{theirs}/{a}/layer_norm/beta"] = tensors[f"{ours}.{b}.bias"]
    return found


def word(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def write(
    path: Path,
    variables: dict[str, np.ndarray],
    version: int = 6,
    kind: str = "WhisperSpec",
    aliases: dict | None = None,
) -> Path:
    parts = [struct.pack("<I", version), word(kind), struct.pack("<II", 3, len(variables))]
    for name, value in sorted(variables.items()):
        value = np.asarray(value)
        parts += [word(name), struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)]
        parts += [struct.pack("<BI", TYPES[value.dtype.name], value.nbytes), value.tobytes()]
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight", **(aliases or {})}
    parts.append(struct.pack("<I", len(aliases)))
    parts += [word(name) for pair in aliases.items() for name in pair]
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("named", ["file", "folder"])
def test_a_joined_model_has_the_whispers_weights(reference, tmp_path, dtype, named):
    (tmp_path / "whisper").mkdir()
    file = write(tmp_path / "whisper" / "model.bin", variables_of(reference, dtype))
    qwen3 = write_qwen3(tmp_path / "qwen3", reference)
    join(file if named == "file" else file.parent, qwen3, tmp_path / "joined")
    found = {}
    for path in (tmp_path / "joined").glob("*.safetensors"):
        found |= load_file(path)
    encoder = {name: value for name, value in found.items() if name.startswith("vision_tower.")}
    expected = {
        name: value.to(getattr(torch, dtype))
        for name, value in released_tensors(reference).items()
        if name.startswith("vision_tower.")
    }
    assert set(encoder) == set(expected)
    for name, value in expected.items():
        assert torch.equal(encoder[name], value), name
        assert encoder[name].dtype == value.dtype
    assert open_model_folder(tmp_path / "joined").config.model == reference.config


def changed(reference: ReferenceModel, change) -> dict[str, np.ndarray]:
    variables = variables_of(reference, "float32")
    change(variables)
    return variables


FUSED = "encoder/layer_1/self_attention/linear_0"
WRONG = {
    "missing": (lambda v: v.pop("encoder/layer_2/ffn/linear_1/bias"), "missing: the variable encoder/layer_2/ffn"),
    "a whole layer missing": (
        lambda v: [v.pop(name) for name in list(v) if "layer_1/" in name],
        "missing: the variable encoder/layer_1",
    ),
    "more": (lambda v: v.update({"encoder/extra": np.zeros(2, np.float32)}), "does not belong there.*encoder/extra"),
    "quantised": (lambda v: v.update({f"{FUSED}/weight": np.zeros((72, 24), np.int8)}), "is int8: quantised; take"),
    "a key bias": (
        lambda v: v.update({f"{FUSED}/bias": np.ones(72, np.float32)}),
        "linear_0/bias: keys have a bias",
    ),
    "a wrong shape": (
        lambda v: v.update({f"{FUSED}/weight": np.zeros((72, 23), np.float32)}),
        "linear_0 is .* not queries, keys and values",
    ),
    "no heads": (lambda v: v.pop("encoder/num_heads"), "missing: the number encoder/num_heads"),
    "half a head": (
        lambda v: v.update({"encoder/num_heads": np.float32(3.5)}),
        "missing: the number encoder/num_heads",
    ),
    "a feed-forward of no shape": (
        lambda v: v.update({"encoder/layer_0/ffn/linear_0/weight": np.float32(1)}),
        "its first layer's ffn/linear_0 is",
    ),
    "no encoder": (lambda v: [v.pop(name) for name in list(v) if name.startswith("encoder")], "missing: the number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_is_wrong_says_where(reference, tmp_path, case):
    change, message = WRONG[case]
    path = write(tmp_path / "model.bin", changed(reference, change))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_ctranslate2_whisper(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_tensors_of_the_same_values_are_stored_once(reference, tmp_path):
    """As CTranslate2's converter does: the others are second names of the first."""
    variables = changed(reference, lambda v: v.pop("encoder/conv2/bias"))
    aliased = write(tmp_path / "a.bin", variables, aliases={"encoder/conv2/bias": "encoder/conv1/bias"})
    tensors, _ = read_ctranslate2_whisper(aliased)
    np.testing.assert_array_equal(tensors["conv2.bias"].read(), reference.encoder.conv1.bias.detach().numpy())
    assert tensors["conv2.bias"].name == "conv2.bias"
    for aliases in ({"encoder/x": "encoder/absent"}, {"encoder/conv1/bias": "encoder/conv1/weight"}):
        with pytest.raises(CheckpointError, match="is there twice, or stands for"):
            read_ctranslate2_whisper(write(tmp_path / "b.bin", variables, aliases=aliases))
    aliased.write_bytes(aliased.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="goes on after its end"):
        read_ctranslate2_whisper(aliased)


def test_other_kinds_and_versions(reference, tmp_path):
    variables = variables_of(reference, "float32")
    with pytest.raises(CheckpointError, match="of another kind, 'TransformerSpec'"):
        read_ctranslate2_whisper(write(tmp_path / "a", variables, kind="TransformerSpec"))
    with pytest.raises(CheckpointError, match=r"no CTranslate2 model of format 6 \(it says 3\)"):
        read_ctranslate2_whisper(write(tmp_path / "b", variables, version=3))


def test_a_file_cut_anywhere_is_one_line(reference, tmp_path):
    data = write(tmp_path / "model.bin", variables_of(reference, "float16")).read_bytes()
    rng = np.random.default_rng(0)
    for end in [0, 3, 4, 8, 20, *rng.integers(20, len(data) - 80, 40)]:
        (tmp_path / "cut.bin").write_bytes(data[:end])
        with pytest.raises(CheckpointError, match=r"cut.bin: .*(cut short|damaged|no CTranslate2)"):
            read_ctranslate2_whisper(tmp_path / "cut.bin")


def test_a_width_that_the_folders_do_not_share_is_named(reference, tmp_path):
    """A variable of a believable but wrong shape is found against the sizes that the others say."""
    variables = changed(reference, lambda v: v.update({"encoder/layer_norm/gamma": np.zeros(23, np.float32)}))
    path = write(tmp_path / "model.bin", variables)
    with pytest.raises(CheckpointError, match=r"layer_norm.weight is \[23\], but \[24\] by the config"):
        join(path, write_qwen3(tmp_path / "qwen3", reference), tmp_path / "joined")
    assert not (tmp_path / "joined").exists()
