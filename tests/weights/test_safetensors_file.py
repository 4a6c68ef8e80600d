"""Headers and indexes: what the safetensors library takes, we take; what it refuses, we refuse and say why."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mufun_jax.errors import CheckpointError
from mufun_jax.weights.safetensors_file import copied, read_folder, read_header, write_shards
from mufun_jax.weights.stored_tensor import BLOCK

TENSORS = {
    "a.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "b": torch.tensor(2.5),
    "c": torch.randn(5, 3).bfloat16(),
    "d": torch.zeros(0, 7, dtype=torch.float16),
}


def test_files_of_the_library_are_read(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt", "who": "me"})
    found = read_folder(tmp_path)
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        values = found[name].read()
        assert values.shape == tuple(tensor.shape)
        np.testing.assert_array_equal(values.astype(np.float64), tensor.double().numpy())


def test_the_library_reads_our_files(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    save_file(TENSORS, tmp_path / "in" / "model.safetensors")
    outputs = [copied(tensor, f"new.{name}") for name, tensor in read_folder(tmp_path / "in").items()]
    write_shards(tmp_path / "out", outputs, 40, lambda *_: None)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    found = {}
    for path in sorted((tmp_path / "out").glob("*.safetensors")):
        found |= load_file(path)
    assert len(set(index["weight_map"].values())) == 2, "48 + 4 + 30 + 0 bytes, 40 a file"
    for name, tensor in TENSORS.items():
        assert torch.equal(found[f"new.{name}"], tensor)
        assert found[f"new.{name}"].dtype == tensor.dtype


def test_a_tensor_larger_than_a_block_is_read_and_written_in_blocks(tmp_path):
    values = torch.arange(BLOCK // 4 + 1000, dtype=torch.float32)
    save_file({"long": values}, tmp_path / "model.safetensors")
    stored = read_folder(tmp_path)["long"]
    assert [len(block) for block in stored.flat_blocks()] == [BLOCK // 4, 1000]
    np.testing.assert_array_equal(np.concatenate(list(stored.flat_blocks())), values)


def with_header(path: Path, header: object, data: bytes, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DAMAGED = {
    "empty": (b"", None, "no safetensors file"),
    "not JSON": (b"{]", b"", "header: not JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", "header: not JSON"),
    "a list": (b"[]", b"", "not a JSON object"),
    "nested for ever": (b'{"a":' * 100_000, b"", "header: not JSON"),
    "twice": (b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8), "'a' is there twice"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, bytes(8), "a: must have dtype"),
    "a key more": ({"a": {**entry(), "x": 1}}, bytes(8), "a: must have dtype"),
    "a shape of many axes": ({"a": entry(shape=[1] * 100_000)}, bytes(8), "shape"),
    "a size of many digits": (
        b'{"a": {"dtype": "F32", "shape": [1%s], "data_offsets": [0, 8]}}' % (b"0" * 4000),
        bytes(8),
        "shape",
    ),
    "float64": ({"a": entry("F64", [1])}, bytes(8), "dtype 'F64'; weights are F32, F16, BF16"),
    "integers": ({"a": entry("I32")}, bytes(8), "dtype 'I32'; weights are"),
    "a dtype that is none": ({"a": entry(["F32"])}, bytes(8), "dtype"),
    "a negative size": ({"a": entry(shape=[-2])}, bytes(8), "shape"),
    "a size that is no number": ({"a": entry(shape=["2"])}, bytes(8), "shape"),
    "a size that is true": ({"a": entry(shape=[True, 2])}, bytes(8), "shape"),
    "offsets backwards": ({"a": entry(offsets=[8, 0])}, bytes(8), "bytes for F32"),
    "three offsets": ({"a": entry(offsets=[0, 8, 9])}, bytes(8), "data_offsets"),
    "too many bytes": ({"a": entry(shape=[3])}, bytes(8), "8 bytes for F32 \\[3\\], 12 needed"),
    "huge": ({"a": entry(shape=[2**61, 2**61])}, bytes(8), "bytes for F32"),
    "overlap": ({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12), "b begins at byte"),
    "a gap": ({"a": entry(), "b": entry(offsets=[9, 17])}, bytes(17), "b begins at byte"),
    "cut short": ({"a": entry()}, bytes(7), "its tensors end at"),
    "too long": ({"a": entry()}, bytes(9), "its tensors end at"),
    "metadata of numbers": ({"__metadata__": {"format": 1}, "a": entry()}, bytes(8), "__metadata__"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_header_is_refused_as_the_library_does(case, tmp_path):
    header, data, message = DAMAGED[case]
    path = tmp_path / "model.safetensors"
    if data is None:
        path.write_bytes(header)
    else:
        with_header(path, header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    if case not in ("integers", "float64", "twice", "a key more", "no dtype"):  # the library is more lenient there
        with pytest.raises(SafetensorError), safe_open(path, "np"):
            pass


@pytest.mark.parametrize("length", [0, 1, 10**6, 2**63, 2**64 - 1])
def test_a_header_of_an_impossible_length(length, tmp_path):
    path = with_header(tmp_path / "model.safetensors", {"a": entry()}, bytes(8), length)
    with pytest.raises(CheckpointError, match="no safetensors file, or cut short"):
        read_header(path)


# --- indexes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    save_file({"a": torch.zeros(2)}, tmp_path / "one.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "two.safetensors")
    return tmp_path


def index(folder: Path, weight_map: object, **more) -> Path:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map, **more}))
    return folder


def test_an_index_that_is_right(folder):
    assert set(read_folder(index(folder, {"a": "one.safetensors", "b": "two.safetensors"}))) == {"a", "b"}


@pytest.mark.parametrize(
    "weight_map, message",
    [
        ({"a": "one.safetensors", "b": "absent.safetensors"}, r"absent.safetensors: no such file, though .*index.json"),
        (
            {"a": "one.safetensors", "c": "two.safetensors"},
            r"two.safetensors: holds b, which .*index.json does not say",
        ),
        ({"a": "one.safetensors", "b": "two.safetensors", "c": "one.safetensors"}, r"one.safetensors: has no tensor c"),
        ({"a": "two.safetensors", "b": "two.safetensors"}, r"two.safetensors: has no tensor a"),
        ({"a": "../x.safetensors"}, "a is said to be in '../x.safetensors', which is no file name"),
        ({"a": "/etc/passwd"}, "which is no file name"),
        ({"a": ".."}, "which is no file name"),
        ({"a": ""}, "which is no file name"),
        ({"a": 3}, "which is no file name"),
        ({}, "no weight_map"),
        (["a"], "no weight_map"),
        (None, "no weight_map"),
    ],
)
def test_an_index_that_is_wrong(folder, weight_map, message):
    with pytest.raises(CheckpointError, match=message):
        read_folder(index(folder, weight_map))


def test_a_tensor_in_two_shards(folder):
    save_file({"a": torch.zeros(2), "b": torch.zeros(2)}, folder / "two.safetensors")
    with pytest.raises(CheckpointError, match=r"two.safetensors: a is there twice: one.safetensors has it too"):
        read_folder(index(folder, {"a": "one.safetensors", "b": "two.safetensors"}))


def test_a_single_file_beside_an_index(folder):
    index(folder, {"a": "one.safetensors", "b": "two.safetensors"})
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has both model.safetensors and model.safetensors.index.json"):
        read_folder(folder)


def test_a_file_that_shrinks_while_it_is_read(folder):
    tensor = read_header(folder / "one.safetensors")["a"]
    (folder / "one.safetensors").write_bytes((folder / "one.safetensors").read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"one.safetensors: ends inside the tensor a"):
        tensor.read()
    (folder / "one.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"one.safetensors: a cannot be read: No such file"):
        tensor.read()
