"""Pickles of plain values, read without running them: dicts, lists, tuples, text, numbers, and named holders of them.

A pickle is a program for a small stack machine, and Python's own reader imports and calls whatever it names. This one
steps through the operations and knows only those that build plain values. A name is looked up in a short list and
never imported; any other operation or name is an error that says which.
"""

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from mufun_jax.errors import ManifestError

MOST_BYTES = 16 << 20
MOST_OPERATIONS = 2_000_000
DEEPEST = 32  # containers in containers
_LARGEST_INTEGER = 1 << 63

Name = tuple[str, str]  # module, name
_OBJECT: set[Name] = {("__builtin__", "object"), ("builtins", "object")}
_RECONSTRUCTORS: set[Name] = {("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")}
_ENCODE: Name = ("_codecs", "encode")  # how Python 3 writes bytes in protocols 0 to 2
_SCALARS: set[Name] = {("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")}
_DTYPE: Name = ("numpy", "dtype")
_KNOWN: set[Name] = {*_OBJECT, *_RECONSTRUCTORS, _ENCODE, *_SCALARS, _DTYPE}
# numpy's codes of the numbers that a scalar may be, as struct writes them.
_NUMBERS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "i2": "h", "u1": "B", "b1": "?"}


@dataclass
class Holder:
    """An object that a pickle describes: its class's name, and its attributes."""

    name: Name
    attributes: dict[str, Any] = field(default_factory=dict)


class _OldText(str):
    """A Python 2 string: text where it is UTF-8; the bytes stay known, since numbers are written so too."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, latin: str) -> "_OldText":
        raw = latin.encode("latin-1")
        try:
            text = super().__new__(cls, raw.decode())
        except UnicodeDecodeError:
            text = super().__new__(cls, latin)
        text.raw = raw
        return text


@dataclass(frozen=True)
class _Global:
    """A name that the pickle names; it stands for itself."""

    name: Name


@dataclass
class _Dtype:
    code: str
    order: str = "<"


class _Mark:
    pass


def read_plain_pickle(data: bytes, path: Path, holders: set[Name]) -> Any:
    """The value in `data`, a pickle of protocol 0 to 4. Objects of the classes in `holders` become Holders.

    Raises:
        ManifestError: names `path`, and what is too large, damaged or not plain.
    """
    if len(data) > MOST_BYTES:
        raise ManifestError(f"{path}: more than {MOST_BYTES} bytes when unpacked; no file of this data set is so large")
    value = _Machine(path, holders).run(data)
    if _deeper_than(value, DEEPEST):
        raise ManifestError(f"{path}: values nested deeper than {DEEPEST}; fetch it again")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    """Level by level, each container once: a pickle may hold one container many times, and even inside itself."""
    level, seen = [value], set()
    for _ in range(limit):
        inner = []
        for one in level:
            if not isinstance(one, dict | list | tuple | Holder) or id(one) in seen:
                continue
            seen.add(id(one))
            held = one.attributes if isinstance(one, Holder) else one
            inner.extend(held.values() if isinstance(held, dict) else held)
        level = inner
    return any(isinstance(one, dict | list | tuple | Holder) and id(one) not in seen for one in level)


class _Machine:
    """The stack machine of a pickle, without the operations that could do harm."""

    def __init__(self, path: Path, holders: set[Name]):
        self._path = path
        self._holders = holders
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        try:
            for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
                if count >= MOST_OPERATIONS:
                    raise ValueError(f"more than {MOST_OPERATIONS} operations")
                if opcode.name == "STOP":
                    return _plain(self._stack.pop())
                operation = _OPERATIONS.get(opcode.name)
                if operation is None:
                    self._refuse(f"the operation {opcode.name}")
                operation(self, argument)
        except ManifestError:
            raise
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, struct.error) as error:
            raise ManifestError(f"{self._path}: its pickle is damaged ({error}); fetch it again") from None
        raise ManifestError(f"{self._path}: its pickle does not end; fetch it again")

    def _refuse(self, what: str) -> NoReturn:
        raise ManifestError(f"{self._path}: holds {what}, which is no plain value and is not run; do not trust it")

    def push(self, value: Any) -> None:
        if isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
            raise ValueError("an integer of more than 64 bits")
        self._stack.append(value)

    def mark(self) -> None:
        self._stack.append(_Mark())

    def _to_mark(self) -> list[Any]:
        items = []
        while not isinstance(self._stack[-1], _Mark):
            items.append(_plain(self._stack.pop(), names=True))
        self._stack.pop()
        return items[::-1]

    def tuple_to_mark(self) -> None:
        self.push(tuple(self._to_mark()))

    def list_to_mark(self) -> None:
        self.push(self._to_mark())

    def dict_to_mark(self) -> None:
        items = self._to_mark()
        self.push({})
        self._set(items)

    def tuple_of(self, count: int) -> None:
        items = tuple(_plain(self._stack.pop(), names=True) for _ in range(count))
        self.push(items[::-1])

    def append(self) -> None:
        item = _plain(self._stack.pop())
        self._append([item])

    def append_to_mark(self) -> None:
        self._append(self._to_mark())

    def _append(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ValueError("items for what is no list")
        self._stack[-1].extend(_plain(item) for item in items)

    def set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items_to_mark(self) -> None:
        self._set(self._to_mark())

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise ValueError("items for what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):  # never hash what a stranger nested: it may take for ever
                raise ValueError(f"a key that is a {type(key).__name__}")
            target[str(key) if isinstance(key, str) else key] = _plain(value)

    def remember(self, key: int | None) -> None:
        self._memo[len(self._memo) if key is None else key] = self._stack[-1]

    def recall(self, key: int) -> None:
        self.push(self._memo[key])

    def named(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._name((module, name))

    def named_on_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no word")
        self._name((str(module), str(name)))

    def _name(self, name: Name) -> None:
        if name not in _KNOWN and name not in self._holders:
            self._refuse(f"the name {'.'.join(name)}")
        self.push(_Global(name))

    def new_object(self) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        if arguments != () or not isinstance(kind, _Global) or kind.name not in self._holders:
            self._refuse("an object of another class")
        self.push(Holder(kind.name))

    def call(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            self._refuse("a call of a value")
        if function.name in _RECONSTRUCTORS:
            kind, base, state = arguments
            if not isinstance(base, _Global) or base.name not in _OBJECT or state is not None:
                self._refuse("an object built on another class than object")
            self._stack += [kind, ()]
            self.new_object()
        elif function.name == _ENCODE:
            text, encoding = arguments
            if encoding not in ("latin1", "latin-1"):
                raise ValueError("bytes in an encoding of their own")
            self.push(text.encode("latin-1"))
        elif function.name == _DTYPE:
            self.push(_Dtype(str(arguments[0])))
        elif function.name in _SCALARS:
            self.push(_number(*arguments))
        else:
            self._refuse(f"a call of {'.'.join(function.name)}")

    def build(self) -> None:
        """BUILD: the attributes of the object below, or the byte order of a numpy type."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, _Dtype) and isinstance(state, tuple):
            target.order = str(state[1])
        elif isinstance(target, Holder) and isinstance(state, dict):
            target.attributes.update((str(key), value) for key, value in state.items())
        else:
            self._refuse("the state of an object")


def _plain(value: Any, names: bool = False) -> Any:
    """The value, unless it is a part of the machine; `names` lets those pass that arguments of calls are."""
    if isinstance(value, _Mark) or (isinstance(value, _Global | _Dtype) and not names):
        raise ValueError("a value that is not finished")
    return value


def _number(dtype: _Dtype, data: Any) -> int | float | bool:
    """A numpy scalar from its bytes."""
    raw = data.raw if isinstance(data, _OldText) else data
    if not isinstance(dtype, _Dtype) or dtype.code not in _NUMBERS or not isinstance(raw, bytes):
        raise ValueError("a numpy value that is no number")
    order = ">" if dtype.order == ">" else "<"
    (number,) = struct.unpack(order + _NUMBERS[dtype.code], raw)
    return number


def _nothing(_machine: _Machine, _value: Any) -> None:
    pass


def _alone(method: Callable[[_Machine], None]) -> Callable[[_Machine, Any], None]:
    """An operation without an argument."""
    return lambda machine, _: method(machine)


_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "MARK": _alone(_Machine.mark),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), _Machine.push),
    **dict.fromkeys(("FLOAT", "BINFLOAT"), _Machine.push),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _Machine.push),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), lambda machine, text: machine.push(_OldText(text))),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "DICT": _alone(_Machine.dict_to_mark),
    "LIST": _alone(_Machine.list_to_mark),
    "TUPLE": _alone(_Machine.tuple_to_mark),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": _alone(_Machine.append),
    "APPENDS": _alone(_Machine.append_to_mark),
    "SETITEM": _alone(_Machine.set_item),
    "SETITEMS": _alone(_Machine.set_items_to_mark),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _alone(_Machine.named_on_stack),
    "NEWOBJ": _alone(_Machine.new_object),
    "REDUCE": _alone(_Machine.call),
    "BUILD": _alone(_Machine.build),
}
