"""`pytorch_model.bin` without PyTorch and without running it: a reader that builds tensors and nothing else.

A file of `torch.save` is an uncompressed zip: a pickle that describes the tensors, and one member a storage. A pickle
is a program for a small stack machine, and Python's own reader calls whatever it names. This one steps through the
operations and knows only those that make dicts, tuples and numbers, and the calls that PyTorch writes for a tensor;
it calls nothing by name. Any other operation or name is an error that says which.
"""

import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from mufun_jax.errors import CheckpointError
from mufun_jax.weights.stored_tensor import DTYPES, LARGEST_AXIS, MOST_AXES, StoredTensor

_PICKLE_LIMIT = 8 * 1024**2  # bytes; that of an 8 B model has 100 KiB
_MOST_OPERATIONS = 1_000_000
_STORAGES = {
    "FloatStorage": "float32",
    "BFloat16Storage": "bfloat16",
    "HalfStorage": "float16",
}
_ENCRYPTED = 1  # of a zip member's flags
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, …, length of its name, of its extra field


@dataclass(frozen=True)
class _Name:
    """A global that the pickle names; it stands for itself."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class _Storage:
    """The numbers of one or more tensors: a member of the zip."""

    dtype: str
    key: str
    numel: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int  # in numbers
    shape: tuple[int, ...]


class _Mark:
    pass


def read_pytorch_bin(path: Path) -> dict[str, StoredTensor]:
    """Where each tensor of a `pytorch_model.bin` lies.

    Raises:
        CheckpointError: the file is damaged, compressed, older than PyTorch 1.6, or holds anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(path, archive)
            pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
            if len(pickles) != 1:
                raise CheckpointError(f"{path}: no single data.pkl in it; was it written by torch.save?")
            info = members[pickles[0]]
            if info.file_size > _PICKLE_LIMIT:
                raise CheckpointError(f"{path}: {info.filename} is larger than {_PICKLE_LIMIT} bytes")
            root = pickles[0].removesuffix("data.pkl")
            order = members.get(f"{root}byteorder")
            if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
                raise CheckpointError(f"{path}: its numbers are big-endian; save it again on an ordinary machine")
            state = _Machine(path).run(archive.read(info))
        if not isinstance(state, dict) or not state:
            raise CheckpointError(f"{path}: holds no dict of tensors")
        return {name: _located(path, root, members, name, value) for name, value in state.items()}
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(
            f"{path}: no file of torch.save, or damaged ({error}); one older than PyTorch 1.6 must be saved again"
        ) from None
    except (OSError, EOFError, ValueError, OverflowError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(f"{path}: cannot be read, or damaged: {error}") from None


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of the archive by name: each once, none compressed or encrypted, none over another."""
    members: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.filename in members:
            raise CheckpointError(f"{path}: holds {info.filename} twice; fetch it again")
        stored = info.compress_type == zipfile.ZIP_STORED and info.compress_size == info.file_size
        if not stored or info.flag_bits & _ENCRYPTED:
            raise CheckpointError(f"{path}: {info.filename} is compressed or encrypted; torch.save does neither")
        if info.header_offset < end:
            raise CheckpointError(f"{path}: {info.filename} lies over another file; fetch it again")
        end = info.header_offset + _LOCAL_HEADER.size + info.file_size
        members[info.filename] = info
    return members


def _located(path: Path, root: str, members: dict[str, zipfile.ZipInfo], name: Any, value: Any) -> StoredTensor:
    if not isinstance(name, str) or not isinstance(value, _Tensor):
        raise CheckpointError(f"{path}: {name!r} is no tensor but {type(value).__name__.lstrip('_')}")
    info = members.get(f"{root}data/{value.storage.key}")
    dtype = DTYPES[value.storage.dtype]
    if info is None:
        raise CheckpointError(f"{path}: the numbers of {name} are missing; fetch it again")
    if info.file_size != value.storage.numel * dtype.itemsize:
        raise CheckpointError(
            f"{path}: {info.file_size} bytes for the {value.storage.numel} numbers of {name}; fetch it again"
        )
    if value.offset + prod(value.shape) > value.storage.numel:
        raise CheckpointError(f"{path}: {name} {list(value.shape)} reaches beyond its {value.storage.numel} numbers")
    start = _data_offset(path, info)
    return StoredTensor(name, path, start + value.offset * dtype.itemsize, value.shape, dtype)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: after its local header, whose length the central directory does not say."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
            raise CheckpointError(f"{path}: the header of {info.filename} is damaged; fetch it again")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        name = file.read(name_length)
        size = file.seek(0, 2)
    if name != info.orig_filename.encode():
        raise CheckpointError(f"{path}: another file lies where {info.filename} should; fetch it again")
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if start + info.file_size > size:
        raise CheckpointError(f"{path}: ends inside {info.filename}; fetch it again")
    return start


class _Machine:
    """The stack machine of a pickle, without the operations that could do harm."""

    def __init__(self, path: Path):
        self._path = path
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if count > _MOST_OPERATIONS:
                    raise ValueError(f"more than {_MOST_OPERATIONS} operations")
                if opcode.name == "STOP":
                    return self._stack.pop()
                operation = _OPERATIONS.get(opcode.name)
                if operation is None:
                    self._refuse(f"the operation {opcode.name}")
                operation(self, argument)
        except CheckpointError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise CheckpointError(f"{self._path}: its pickle is damaged ({error}); fetch it again") from None
        raise CheckpointError(f"{self._path}: its pickle does not end; fetch it again")

    def _refuse(self, what: str) -> NoReturn:
        raise CheckpointError(f"{self._path}: holds {what}, which is no tensor and is not run; get it as safetensors")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self, _: Any) -> None:
        self._stack.append(_Mark())

    def _to_mark(self) -> list[Any]:
        items = []
        while not isinstance(self._stack[-1], _Mark):
            items.append(self._stack.pop())
        self._stack.pop()
        return items[::-1]

    def tuple_to_mark(self, _: Any) -> None:
        self.push(tuple(self._to_mark()))

    def tuple_of(self, count: int) -> None:
        items = tuple(self._stack[len(self._stack) - count :])
        if len(items) != count or any(isinstance(item, _Mark) for item in items):
            raise ValueError("a tuple of too few items")
        del self._stack[len(self._stack) - count :]
        self.push(items)

    def remember(self, key: int | None) -> None:
        self._memo[len(self._memo) if key is None else key] = self._stack[-1]

    def recall(self, key: int) -> None:
        self.push(self._memo[key])

    def name(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_name(_Name(module, name))

    def stack_name(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no word")
        self._push_name(_Name(module, name))

    def _push_name(self, name: _Name) -> None:
        storage = name.module == "torch" and name.name in _STORAGES
        if name not in _CALLS and not storage:
            self._refuse(f"the name {name}")
        self.push(name)

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):  # never hash or print what a stranger nested: it may take for ever
                raise ValueError(f"a key that is a {type(key).__name__}")
            if key in target:
                raise CheckpointError(f"{self._path}: {key!r} is there twice")
            target[key] = value

    def set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self.set_items([key, value])

    def set_items_to_mark(self, _: Any) -> None:
        self.set_items(self._to_mark())

    def attributes(self, _: Any) -> None:
        """BUILD: `torch.save` of a state dict adds its `_metadata`, versions of modules, which nothing here needs."""
        attributes = self._stack.pop()
        if (
            not isinstance(self._stack[-1], dict)
            or not isinstance(attributes, dict)
            or set(attributes) != {"_metadata"}
        ):
            self._refuse("the state of an object")

    def storage(self, _: Any) -> None:
        """A persistent id: ("storage", type, key, device, count of numbers)."""
        kind, storage_type, key, _device, numel = self._stack.pop()
        if (
            not isinstance(kind, str)
            or kind != "storage"
            or not isinstance(storage_type, _Name)
            or storage_type.name not in _STORAGES
        ):
            self._refuse("a persistent id that is no storage of floating-point numbers")
        if not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise ValueError("a storage without a name or a size")
        self.push(_Storage(_STORAGES[storage_type.name], key, numel))

    def call(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Name) or function not in _CALLS or not isinstance(arguments, tuple):
            self._refuse("a call of what is no tensor's")
        self.push(_CALLS[function](arguments))


def _ordered_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if arguments:
        raise ValueError("an OrderedDict with arguments")
    return {}


def _tensor(arguments: tuple[Any, ...]) -> _Tensor:
    """_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks). Rows must follow one another."""
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, _Storage) or type(offset) is not int or not 0 <= offset < LARGEST_AXIS:
        raise ValueError("a tensor without a storage or an offset")
    for sizes in (shape, stride):
        if not isinstance(sizes, tuple) or len(sizes) > MOST_AXES:
            raise ValueError("a tensor without a shape or strides")
        if not all(type(size) is int and 0 <= size < LARGEST_AXIS for size in sizes):
            raise ValueError("a tensor of an impossible shape")
    expected = tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
    if len(stride) != len(shape) or any(
        size > 1 and one != other for size, one, other in zip(shape, stride, expected, strict=True)
    ):
        raise ValueError(f"a tensor {list(shape)} with strides {list(stride)}: save it .contiguous()")
    return _Tensor(storage, offset, shape)


def _parameter(arguments: tuple[Any, ...]) -> _Tensor:
    """_rebuild_parameter(tensor, requires_grad, hooks)."""
    if not isinstance(arguments[0], _Tensor):
        raise ValueError("a parameter that is no tensor")
    return arguments[0]


_CALLS: dict[Any, Callable[[tuple[Any, ...]], Any]] = {
    _Name("collections", "OrderedDict"): _ordered_dict,
    _Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    _Name("torch._utils", "_rebuild_parameter"): _parameter,
}


def _push(machine: _Machine, value: Any) -> None:
    machine.push(value)


def _nothing(_machine: _Machine, _value: Any) -> None:
    pass


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "MARK": _Machine.mark,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _push),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), _push),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items_to_mark,
    "BINPERSID": _Machine.storage,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.attributes,
}
