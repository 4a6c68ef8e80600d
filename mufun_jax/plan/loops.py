"""How often each part of a compiled program runs: trip counts of its loops, multiplied where loops nest."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mufun_jax.plan.hlo import Computation, HloProgram, Instruction

_PASSED_ON = ("bitcast", "copy", "copy-start", "copy-done", "convert", "optimization-barrier")
_SCAFFOLD = ("", "while", "body", "cond", "closed_call", "checkpoint", "rematted_computation")
_KNOWN = re.compile(r"known_trip_count\D*(\d+)")


@dataclass(frozen=True)
class Run:
    """A computation that instructions run in: the program's entry, a loop's body, a branch.

    `loop` is the while instruction of a body. `counted` is false where a loop's end depends on data: one turn is taken.
    """

    computation: Computation
    times: int
    name: str
    loop: Instruction | None = None
    counted: bool = True


def runs(program: HloProgram) -> Iterator[Run]:
    """Every run of a program, from its entry on. All branches of a conditional are taken."""
    yield from _below(program, Run(program.entry, 1, "outside of loops"))


def _below(program: HloProgram, run: Run) -> Iterator[Run]:
    yield run
    for instruction in run.computation.instructions.values():
        if instruction.opcode == "while":
            turns = trip_count(program, run.computation, instruction)
            body = program.computations[instruction.called("body")]
            times = run.times * (turns or 1)
            name = readable(instruction.op_name)
            yield from _below(program, Run(body, times, name, instruction, counted=turns is not None))
        elif instruction.opcode in ("call", "conditional", "async-start"):
            for name in instruction.all_called():
                inner = Run(program.computations[name], run.times, run.name, run.loop, run.counted)
                yield from _below(program, inner)


def readable(op_name: str) -> str:
    """`jit(step)/transpose(jvp(MuFunModel))/MuFunModel.encode_audio/encoder/while/body/…` as `encoder, backward`."""
    parts = op_name.split("/")
    plain = [part for part in parts if part not in _SCAFFOLD and not re.search(r"\(|->|^MuFunModel\.", part)]
    name = "/".join(part.split(".")[-1] for part in plain) or parts[0] or "a loop"
    return f"{name}, backward" if any(part.startswith("transpose(") for part in parts) else name


def trip_count(program: HloProgram, outside: Computation, loop: Instruction) -> int | None:
    """Turns of a while loop: as the compiler notes it, or from `index < bound` with a constant start, bound and step.

    None where its end depends on data.
    """
    noted = _KNOWN.search(loop.attributes)
    if noted:
        return int(noted[1])
    found = _comparison(program, program.computations[loop.called("condition")])
    if found is None:
        return None
    direction, left, right = found
    if isinstance(left, int) and not isinstance(right, int):  # bound > index
        left, right, direction = right, left, {"GT": "LT", "GE": "LE", "LT": "GT", "LE": "GE"}.get(direction, direction)
    index = left
    if not isinstance(index, _Element):
        return None
    start = _initial(outside, loop, index)
    bound = right if isinstance(right, int) else _initial(outside, loop, right)
    step = _step(program, loop, index)
    if start is None or bound is None or not step:
        return None
    if direction in ("LE", "GE"):
        bound += 1 if step > 0 else -1
    if direction == "NE" or (direction in ("LT", "LE")) == (step > 0):
        return max(0, -(-(bound - start) // step))
    return None


@dataclass(frozen=True)
class _Element:
    """Element `index` of the tuple that a loop carries."""

    index: int


def _comparison(program: HloProgram, condition: Computation) -> "tuple[str, int | _Element, int | _Element] | None":
    """The comparison that ends a loop, looked up through a fusion round it."""
    root, values = condition.root, {}
    inside = condition
    while root.opcode in ("fusion", "call"):
        called = program.computations[root.all_called()[0]]
        passed = [_resolve(inside, name, values) for name in root.operands]
        values = {each.name: passed[number] for number, each in called.parameters.items()}
        inside, root = called, called.root
    if root.opcode != "compare":
        return None
    left, right = (_resolve(inside, name, values) for name in root.operands)
    direction = root.attribute("direction")
    assert direction is not None
    return None if left is None or right is None else (direction, left, right)


def _resolve(
    computation: Computation, name: str, values: dict[str, "int | _Element | None"]
) -> "int | _Element | None":
    """A scalar as a constant or as an element of the loop's tuple."""
    instruction = computation.instructions[name]
    while instruction.opcode in _PASSED_ON:
        instruction = computation.instructions[instruction.operands[0]]
    if instruction.name in values:
        return values[instruction.name]
    if instruction.opcode == "constant":
        return _integer(instruction)
    if instruction.opcode == "get-tuple-element":
        source = computation.instructions[instruction.operands[0]]
        if source.opcode == "parameter":
            return _Element(int(instruction.attribute("index") or 0))
    return None


def _initial(outside: Computation, loop: Instruction, element: _Element) -> int | None:
    """The value with which an element of the loop's tuple starts, if it is a constant."""
    carried = outside.instructions[loop.operands[0]]
    if carried.opcode != "tuple":
        return None
    value = _resolve(outside, carried.operands[element.index], {})
    return value if isinstance(value, int) else None


def _step(program: HloProgram, loop: Instruction, element: _Element) -> int | None:
    """What a turn adds to an element of the loop's tuple."""
    body = program.computations[loop.called("body")]
    if body.root.opcode != "tuple":
        return None
    added = body.instructions[body.root.operands[element.index]]
    while added.opcode in _PASSED_ON:
        added = body.instructions[added.operands[0]]
    inside, values = body, {}
    if added.opcode == "fusion":
        called = program.computations[added.called("calls")]
        values = {each.name: _resolve(body, added.operands[number], {}) for number, each in called.parameters.items()}
        inside, added = called, called.root
    if added.opcode not in ("add", "subtract"):
        return None
    left, right = (_resolve(inside, name, values) for name in added.operands)
    if isinstance(left, int):
        left, right = right, left
    if left != element or not isinstance(right, int):
        return None
    return right if added.opcode == "add" else -right


def _integer(constant: Instruction) -> int | None:
    return int(constant.argument) if re.fullmatch(r"-?\d+", constant.argument) else None
