"""`pytorch_model.bin`: tensors as PyTorch reads them; whatever is not a tensor is refused, and nothing is run."""

import collections
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mufun_jax.convert.from_torch import from_hf
from mufun_jax.convert.torch_pickle import read_pytorch_bin
from mufun_jax.errors import CheckpointError
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import small_model, write_stage


def saved(path: Path, value: object, **options) -> Path:
    torch.save(value, path, **options)
    return path


def state() -> dict[str, torch.Tensor]:
    base = torch.randn(6, 4)
    return {
        "float32": torch.randn(3, 4),
        "bfloat16": torch.randn(5).bfloat16(),
        "float16": torch.randn(2, 2, 2).half(),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 3),
        "rows of another": base[2:5],
        "shares them": base,
        "one wide": torch.randn(4, 1, 3),
        "a parameter": torch.nn.Parameter(torch.randn(3)),
        "a buffer without": torch.nn.Parameter(torch.randn(3), requires_grad=False),
    }


@pytest.mark.parametrize("kind", ["dict", "ordered", "state_dict", "protocol 4"])
def test_tensors_are_those_that_pytorch_reads(tmp_path, kind):
    value: dict = state()
    if kind == "ordered":
        value = collections.OrderedDict(value)
    if kind == "state_dict":
        value = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).state_dict()
        assert hasattr(value, "_metadata")
    path = saved(tmp_path / "x.bin", value, **({"pickle_protocol": 4} if kind == "protocol 4" else {}))
    found = read_pytorch_bin(path)
    expected = torch.load(path, weights_only=kind != "protocol 4")  # which its restricted reader does not know
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(found[name].read().astype(np.float64), tensor.detach().double().numpy())


class Runs:
    """Unpickled, it would leave a folder behind."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_code_is_not_run(tmp_path):
    trace = tmp_path / "trace"
    path = saved(tmp_path / "x.bin", {"a": torch.zeros(2), "b": Runs(trace)})
    with pytest.raises(CheckpointError, match=r"x.bin: holds the name posix.mkdir, which is no tensor and is not run"):
        read_pytorch_bin(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), "PyTorch's own reader does run it"


def test_a_stage_whose_pickle_would_run_code_leaves_nothing(tmp_path):
    source = write_stage(tmp_path / "source", ReferenceModel(small_model()))
    trace = tmp_path / "trace"
    torch.save({"_connector.linear1.weight": Runs(trace)}, source / "connector" / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"connector/pytorch_model.bin: holds the name posix.mkdir"):
        from_hf(source, tmp_path / "ours")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize(
    "value, message",
    [
        ({"a": 3}, "'a' is no tensor but int"),
        ({"a": "word"}, "'a' is no tensor but str"),
        ({"a": {"b": torch.zeros(2)}}, "'a' is no tensor but dict"),
        ({"a": None}, "'a' is no tensor but NoneType"),
        ({1: torch.zeros(2)}, "a key that is a int"),
        ([torch.zeros(2)], "holds the operation EMPTY_LIST"),
        (torch.zeros(2), "holds no dict of tensors"),
        ({}, "holds no dict of tensors"),
        ({"a": torch.zeros(2, dtype=torch.int64)}, "holds the name torch.LongStorage"),
        ({"a": torch.zeros(2, dtype=torch.float64)}, "holds the name torch.DoubleStorage"),
        ({"a": torch.zeros(2, dtype=torch.int8)}, "holds the name torch.CharStorage"),
        ({"a": torch.zeros(4, 3).T}, r"a tensor \[3, 4\] with strides \[1, 3\]: save it .contiguous"),
        ({"a": torch.zeros(1).expand(5)}, r"with strides \[0\]"),
        ({"a": torch.nn.Linear(2, 2)}, "holds the name torch.nn.modules.linear.Linear"),
        ({"a": torch.zeros(2).to_sparse()}, "holds the name torch._utils._rebuild_sparse_tensor"),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_what_is_no_tensor_is_refused(tmp_path, value, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        read_pytorch_bin(saved(tmp_path / "x.bin", value))
    assert "\n" not in str(caught.value)


def rebuilt(path: Path, change) -> Path:
    """A saved file with `change(members)` applied to its members, name -> bytes."""
    with zipfile.ZipFile(saved(path, state())) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    change(members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def replace_pickle(data: bytes):
    def change(members: dict[str, bytes]) -> None:
        members["x/data.pkl"] = data

    return change


def nested(depth: int) -> bytes:
    """A tuple of two of itself, and so on: 2^depth leaves if anything walks them."""
    return b"\x80\x02)" + b"q\x00h\x00\x86" * depth


STORAGE = (  # a tensor up to its storage
    b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0ctQ"
)
HOSTILE = {
    "nothing": b"",
    "no end": b"\x80\x02}",
    "end of nothing": b".",
    "unknown operation": b"\xff.",
    "cut in a word": b"\x80\x02X\xff\x00\x00\x00abc",
    "a word of 4 GB": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a memo of 4 GB": b"\x80\x02}r\xff\xff\xff\xff.",
    "recalls what is not there": b"\x80\x02h\x05.",
    "a mark too many": b"\x80\x02(.",
    "items without a mark": b"\x80\x02}u.",
    "calls a word": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "calls an exponential tuple": nested(60) + b")R.",
    "an exponential key": b"\x80\x02}" + nested(60)[2:] + b"Ns.",
    "an exponential persistent id": nested(60) + b"Q.",
    "an exponential value": b"\x80\x02}X\x01\x00\x00\x00a" + nested(60)[2:] + b"s.",
    "os.system": b"cos\nsystem\n(S'touch hacked'\ntR.",
    "builtins by stack": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
    "an instance": b"(cos\nsystem\no.",
    "a new object": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "an extension": b"\x80\x02\x82\x01.",
    "state of a dict": b"\x80\x02}}X\x01\x00\x00\x00aNsb.",
    "a dict of arguments": b"\x80\x02ccollections\nOrderedDict\n}\x85R.",
    "a tensor of nothing": b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n)Rs.",
    "a tensor of numbers": b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(K\x01K\x01K\x01K\x01tRs.",
    "a shape of many sizes": STORAGE + b"K\x00(" + (b"\x8a\x20" + b"\x7f" * 32) * 5000 + b"tq\x05h\x05tRs.",
    "many dicts": b"\x80\x02" + b"}" * 2_000_000 + b".",
    "a long number": b"\x80\x02\x8b\xff\xff\xff\x7f.",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_pickle_is_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_pytorch_bin(rebuilt(tmp_path / "x.bin", replace_pickle(HOSTILE[case])))
    assert str(tmp_path / "x.bin") in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_a_tensor_beyond_its_storage(tmp_path):
    def change(members):
        members["x/data.pkl"] = members["x/data.pkl"].replace(b"K\x00K\x03K\x04\x86", b"K\x01K\x03K\x04\x86", 1)

    with pytest.raises(CheckpointError, match=r"float32 \[3, 4\] reaches beyond its 12 numbers"):
        read_pytorch_bin(rebuilt(tmp_path / "x.bin", change))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda members: members.pop("x/data/0"), "the numbers of float32 are missing"),
        (lambda members: members.update({"x/data/0": b"1234"}), "4 bytes for the 12 numbers of float32"),
        (lambda members: members.update({"x/byteorder": b"big"}), "big-endian"),
        (lambda members: members.update({"y/data.pkl": b"."}), "no single data.pkl"),
        (lambda members: members.pop("x/data.pkl"), "no single data.pkl"),
    ],
)
def test_an_archive_that_is_wrong(change, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        read_pytorch_bin(rebuilt(tmp_path / "x.bin", change))


def test_a_compressed_archive(tmp_path):
    path = tmp_path / "x.bin"
    with zipfile.ZipFile(saved(path, state())) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(CheckpointError, match="is compressed or encrypted"):
        read_pytorch_bin(path)


def test_an_archive_whose_directory_points_elsewhere(tmp_path):
    """The central directory says that one tensor's numbers lie where another's do, or outside the file."""
    data = bytearray(saved(tmp_path / "x.bin", state()).read_bytes())
    with zipfile.ZipFile(tmp_path / "x.bin") as archive:
        offsets = {info.filename: info.header_offset for info in archive.infolist()}
    entry = data.rindex(b"x/data/1") - 46  # the fixed part of a directory entry; its last four bytes are the offset
    for offset in (offsets["x/data/2"], 0, 2**31):
        data[entry + 42 : entry + 46] = offset.to_bytes(4, "little")
        (tmp_path / "y.bin").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"another file lies where|lies over another|damaged"):
            read_pytorch_bin(tmp_path / "y.bin")


def test_an_archive_whose_directory_swaps_two_tensors(tmp_path):
    """Two of one size, each said to lie where the other does: nothing overlaps, and only the names in place differ."""
    data = bytearray(saved(tmp_path / "x.bin", state()).read_bytes())
    with zipfile.ZipFile(tmp_path / "x.bin") as archive:
        one, other = (archive.getinfo(f"x/data/{key}") for key in (7, 8))
    assert one.file_size == other.file_size == 12
    for info, offset in ((one, other.header_offset), (other, one.header_offset)):
        entry = data.rindex(info.filename.encode()) - 46
        data[entry + 42 : entry + 46] = offset.to_bytes(4, "little")
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"another file lies where x/data/[78] should"):
        read_pytorch_bin(tmp_path / "x.bin")


def test_files_of_another_kind(tmp_path):
    path = tmp_path / "x.bin"
    for data in (b"", b"PK\3\4", pickle.dumps({"a": 1}), legacy()):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"no file of torch.save, or damaged .* older than PyTorch 1.6"):
            read_pytorch_bin(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_pytorch_bin(tmp_path / "absent.bin")


def legacy() -> bytes:
    buffer = io.BytesIO()
    torch.save(state(), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()
