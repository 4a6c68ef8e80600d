"""Collectives of a compiled program: kind, bytes, and the devices that take part."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

import numpy as np

from mufun_jax.plan.hlo import Computation, HloProgram, Instruction

Kind = Literal["all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Between slices the runtime moves data through the hosts: a send, and what it is part of.
_BETWEEN_SLICES: dict[str, Kind] = {
    "ALL_REDUCE": "all-reduce",
    "ALL_GATHER": "all-gather",
    "REDUCE_SCATTER": "reduce-scatter",
    "ALL_TO_ALL": "all-to-all",
    "ONE_TO_ONE": "collective-permute",
}
_TRANSFER = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"mesh\[([^\]]*)\](?:,? ?device_ids=\((.*?)\)(?= ?\{))? ?\{([^}]*)\}")
_ORDER = re.compile(r"\[([\d,]+)\](?:T\(([\d,]+)\))?")
_SUB_AXIS = re.compile(r"'?([\w.]+)'?(?::\((\d+)\)(\d+))?")


@dataclass(frozen=True)
class Collective:
    """One collective operation of one run of the computation it is in.

    `nbytes` is the whole: what an all-gather gathers, what a reduction reduces, what an exchange or permutation holds
    of one device. `group` is one group of the devices that take part, as positions in the program's device list.
    """

    kind: Kind
    nbytes: int
    group: tuple[int, ...]
    asynchronous: bool
    name: str
    op_name: str
    dims: tuple[tuple[int, ...], ...]  # of the whole arrays
    between_slices: bool = False

    @property
    def sent_bytes(self) -> float:
        """Bytes that each device sends, by a ring: for an all-reduce twice those of a reduce-scatter."""
        n = len(self.group)
        if self.kind == "collective-permute":
            return float(self.nbytes)
        return self.nbytes * (n - 1) / n * (2 if self.kind == "all-reduce" else 1)


def chained_channels(program: HloProgram) -> frozenset[str]:
    """Channels of the collectives that run alongside products in a chain of fusions, each of which names them."""
    return frozenset(
        channel
        for computation in program.computations.values()
        if _starts(computation)
        for instruction in computation.instructions.values()
        if _kind(instruction) and (channel := instruction.attribute("channel_id"))
    )


def collectives_of(
    program: HloProgram, computation: Computation, devices: int, slices: int, chained: frozenset[str]
) -> list[Collective]:
    """Collectives of a computation and of its fusions. One that a chain of fusions carries, even through a loop's
    turns, is counted once, where it starts."""
    found: list[Collective] = []
    for instruction in computation.instructions.values():
        if instruction.opcode == "fusion":
            found += _fused(program.computations[instruction.called("calls")], devices, chained)
        elif instruction.opcode == "send" and (transfer := _TRANSFER.search(instruction.attributes)):
            found.append(_between_slices(computation, instruction, transfer[1], devices, slices))
        elif (kind := _kind(instruction)) is not None:
            asynchronous = instruction.opcode.endswith("-start")
            found.append(_collective(computation, instruction, kind, devices, asynchronous))
    return [each for each in found if len(each.group) > 1]


def _fused(called: Computation, devices: int, chained: frozenset[str]) -> Iterator[Collective]:
    """Collectives inside one fusion. TPU programs write a reduce-scatter as an all-reduce of which a slice is kept."""
    starts = _starts(called)
    for instruction in called.instructions.values():
        if (kind := _kind(instruction)) is None:
            continue
        if instruction.attribute("channel_id") in chained and not starts:
            continue
        scattered = kind == "all-reduce" and "all-reduce-scatter" in called.name
        yield _collective(called, instruction, "reduce-scatter" if scattered else kind, devices, starts)


def _between_slices(
    computation: Computation, send: Instruction, transfer: str, devices: int, slices: int
) -> Collective:
    """What the runtime does between slices: each device with its likes in the others. The data axis, outermost, is
    what lies across slices, so the likes of device 0 are a slice's devices apart."""
    kind = _BETWEEN_SLICES[transfer]
    sent = computation.operands(send)[0].shapes[0]
    group = tuple(range(0, devices, devices // slices))[: 2 if kind == "collective-permute" else None]
    nbytes = sent.nbytes * (len(group) if kind == "all-gather" else 1)
    return Collective(kind, nbytes, group, True, send.name, send.op_name, (sent.dims,), between_slices=True)


def _starts(computation: Computation) -> bool:
    return any('"AsyncCollectiveStart"' in each.attributes for each in computation.instructions.values())


def _kind(instruction: Instruction) -> Kind | None:
    plain = instruction.opcode.removesuffix("-start")
    return next((kind for kind in KINDS if kind == plain), None)


def _collective(
    computation: Computation, instruction: Instruction, kind: Kind, devices: int, asynchronous: bool
) -> Collective:
    operands = [shape for each in computation.operands(instruction) for shape in each.shapes]
    group = device_group(instruction, devices)
    if kind == "all-gather":
        whole = [max(instruction.shapes, key=lambda shape: shape.nbytes)]
        if len(operands) > 1:
            whole = list(instruction.shapes)[-len(operands) :]
        nbytes = sum(shape.nbytes for shape in operands) * len(group)
    else:
        whole, nbytes = operands, sum(shape.nbytes for shape in operands)
    dims = tuple(shape.dims for shape in whole)
    return Collective(kind, nbytes, group, asynchronous, instruction.name, instruction.op_name, dims)


def device_group(instruction: Instruction, devices: int) -> tuple[int, ...]:
    """The devices of one group (the one that device 0 is in, or the first), or a permutation's longest pair."""
    pairs = instruction.attribute("source_target_pairs")
    if pairs is not None:
        numbers = [int(number) for number in re.findall(r"\d+", pairs)]
        sources = list(zip(numbers[::2], numbers[1::2], strict=True))
        return next(((one, other) for one, other in sources if one != other), ())
    start = instruction.attributes.find("replica_groups=")
    text = instruction.attributes[start + len("replica_groups=") :] if start >= 0 else "{}"
    if text.startswith("mesh"):
        return _mesh_group(text)
    if text.startswith("["):
        return _iota_group(text)
    first = re.match(r"\{\{([\d,]*)\}", text)
    return tuple(int(number) for number in first[1].split(",")) if first and first[1] else tuple(range(devices))


def _iota_group(text: str) -> tuple[int, ...]:
    """`[groups,size]<=[dims]T(permutation)`: the numbers of all devices, in that order, cut into groups."""
    found = _IOTA.match(text)
    assert found is not None, text[:100]
    _, size = (int(number) for number in found[1].split(","))
    return tuple(_iota(found[2], found[3]).reshape(-1, size)[0].tolist())


def _mesh_group(text: str) -> tuple[int, ...]:
    """`mesh['a'=4,'b'=2], device_ids=(…) {'b'}`: devices that differ along `b` alone. `'a':(1)2` is the part of `a` of
    size 2 that comes after a part of size 1."""
    found = _MESH.match(text)
    assert found is not None, text[:200]
    sizes = {axis: int(size) for axis, size in re.findall(r"'?([\w.]+)'?=(\d+)", found[1])}
    array = _device_order(found[2], prod(sizes.values())).reshape(list(sizes.values()))
    names, shape, picked = list(sizes), [], []
    wanted: dict[str, list[tuple[int, int]]] = {}
    for part in found[3].split(","):
        name, before, size = _SUB_AXIS.match(part.strip()).groups()  # pyright: ignore[reportOptionalMemberAccess]
        wanted.setdefault(name, []).append((int(before), int(size)) if before else (1, sizes[name]))
    for name in names:
        for before, size in _cut(sizes[name], wanted.get(name, [])):
            shape.append(size)
            picked.append((before, size) in wanted.get(name, []))
    parted = array.reshape(shape)
    return tuple(parted[tuple(slice(None) if taken else 0 for taken in picked)].reshape(-1).tolist())


def _device_order(text: str | None, devices: int) -> np.ndarray:
    """The devices of a mesh in its order: `[2,2]T(1,0)`, a list, or nothing where they are in their own."""
    if text is None:
        return np.arange(devices)
    iota = _ORDER.match(text)
    return _iota(iota[1], iota[2]) if iota else np.array([int(number) for number in text.split(",")])


def _cut(size: int, parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """An axis as parts (product of the sizes before it, size), the wanted ones among them."""
    cut, done = [], 1
    for before, length in sorted(parts):
        if before > done:
            cut.append((done, before // done))
        cut.append((before, length))
        done = before * length
    if done < size:
        cut.append((done, size // done))
    return cut


def _iota(dims: str, permutation: str | None) -> np.ndarray:
    shape = [int(number) for number in dims.split(",")]
    array = np.arange(int(np.prod(shape))).reshape(shape)
    return array.transpose([int(axis) for axis in permutation.split(",")]) if permutation else array
