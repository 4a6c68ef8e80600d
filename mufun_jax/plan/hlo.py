"""The text of a compiled program (XLA's HLO), parsed: computations of instructions with shapes and operands.

Only what the planner asks about is kept: names, opcodes, shapes with their memory space, operands, and attributes as
text. The syntax is that of `jax.stages.Compiled.as_text()`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod

_BITS = {"pred": 8, "token": 0, "opaque": 0}  # of all other dtypes the name says it: bf16, s4, f8e4m3fn
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_LEAF = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_OPERAND = re.compile(r"%([\w.\-]+)")
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")
_CALLED = re.compile(
    r"\b(?:calls|to_apply|body|condition|called_computations|branch_computations)=(\{[^}]*\}|%[\w.\-]+)"
)
HBM, VMEM, HOST = 0, 1, 5  # memory spaces, as layouts of TPU programs name them: nothing, S(1), S(5)


@dataclass(frozen=True)
class Shape:
    """One array: dtype, dimensions and where it lies."""

    dtype: str
    dims: tuple[int, ...]
    memory_space: int = HBM

    @property
    def size(self) -> int:
        return prod(self.dims)

    @property
    def nbytes(self) -> int:
        named = re.match(r"[a-z]+(\d+)", self.dtype)
        bits = int(named[1]) if named else _BITS[self.dtype]
        return (self.size * bits + 7) // 8


@dataclass(frozen=True)
class Instruction:
    """`%name = shapes opcode(operands), attributes`. A tuple has several shapes, in order."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    argument: str  # the text between the parentheses: a constant's value, a parameter's number
    attributes: str
    is_root: bool

    def attribute(self, name: str) -> str | None:
        """The value of `name=…` up to a space or comma outside brackets."""
        start = self.attributes.find(f" {name}=")
        if start < 0:
            return None
        start += len(name) + 2
        depth = 0
        for end in range(start, len(self.attributes)):
            letter = self.attributes[end]
            depth += (letter in "{[(") - (letter in "}])")
            if depth == 0 and letter in ", " and not self.attributes.startswith(" {", end):
                return self.attributes[start:end]
        return self.attributes[start:]

    def called(self, name: str) -> str:
        """The computation that the attribute `name` calls."""
        value = self.attribute(name)
        assert value is not None, f"{self.name}: no {name}"
        return value.strip("{}%")

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from: `jit(train_step)/jvp(MuFunModel)/decoder/while/…`."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def backend_config(self) -> str:
        start = self.attributes.find("backend_config=")
        return self.attributes[start + len("backend_config=") :] if start >= 0 else ""

    def all_called(self) -> list[str]:
        return [name for group in _CALLED.findall(self.attributes) for name in _OPERAND.findall(group)]


@dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they run."""

    name: str
    instructions: dict[str, Instruction]

    @cached_property
    def root(self) -> Instruction:
        return next(instruction for instruction in self.instructions.values() if instruction.is_root)

    @cached_property
    def parameters(self) -> dict[int, Instruction]:
        found = (each for each in self.instructions.values() if each.opcode == "parameter")
        return {int(each.argument): each for each in found}

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        users: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in instruction.operands:
                users[operand].append(instruction)
        return users

    def operands(self, instruction: Instruction) -> list[Instruction]:
        return [self.instructions[name] for name in instruction.operands]


@dataclass(frozen=True)
class HloProgram:
    """All computations of a program by name, and the one that runs first."""

    computations: dict[str, Computation]
    entry: Computation

    def instructions(self) -> Iterator[tuple[Computation, Instruction]]:
        """Every instruction, inside fusions too, each once."""
        for computation in self.computations.values():
            for instruction in computation.instructions.values():
                yield computation, instruction


def parse_hlo(text: str) -> HloProgram:
    """Parses a program. Raises ValueError where the text is no HLO module with an entry computation."""
    computations: dict[str, Computation] = {}
    entry: Computation | None = None
    name, is_entry, instructions = "", False, {}
    for line in _logical_lines(text):
        if name and line == "}":
            computations[name] = Computation(name, instructions)
            entry = computations[name] if is_entry else entry
            name = ""
        elif name:
            found = _INSTRUCTION.match(line)
            if found:
                instructions[found[2]] = _parse_instruction(found, line)
        else:
            opened = _COMPUTATION.match(line)
            if opened:
                name, is_entry, instructions = opened[2], bool(opened[1]), {}
    if entry is None:
        raise ValueError("not the text of a compiled program: no ENTRY computation")
    return HloProgram(computations, entry)


def _logical_lines(text: str) -> Iterator[str]:
    """Lines, with what a Pallas kernel's metadata spreads over several joined again."""
    held = ""
    for line in text.splitlines():
        if held:
            held += line
            if line.startswith("}}"):
                yield held
                held = ""
        elif line.endswith("kernel_metadata={"):
            held = line
        else:
            yield line


def _parse_instruction(found: re.Match[str], line: str) -> Instruction:
    start = found.end()
    end = _closing(line, start) if line[start] == "(" else line.index(" ", start)
    shapes = tuple(
        Shape(
            leaf[1],
            tuple(int(size.lstrip("<=")) for size in leaf[2].split(",") if size),
            int(space[1]) if leaf[3] and (space := _MEMORY_SPACE.search(leaf[3])) else HBM,
        )
        for leaf in _LEAF.finditer(line, start, end)
    )
    opcode = _OPCODE.match(line, end)
    assert opcode is not None, line[:200]
    close = _closing(line, opcode.end() - 1)
    argument = line[opcode.end() : close - 1]
    operands = tuple(_OPERAND.findall(argument)) if opcode[1] != "constant" else ()
    return Instruction(found[2], opcode[1], shapes, operands, argument, " " + line[close:].lstrip(", "), bool(found[1]))


def _closing(line: str, start: int) -> int:
    """The index after the parenthesis that closes the one at `start`."""
    depth = 0
    for end in range(start, len(line)):
        depth += (line[end] == "(") - (line[end] == ")")
        if depth == 0:
            return end + 1
    raise ValueError(f"a parenthesis that is never closed: {line[:200]}")
