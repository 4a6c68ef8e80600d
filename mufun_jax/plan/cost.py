"""What one instruction of a compiled program costs: FLOPs of its products, and bytes it moves to and from memory.

FLOPs are those of dots and convolutions, two a multiply-add, and of Pallas attention kernels from their shapes, since a
kernel is opaque to the compiler. Elementwise work is not counted, nor are products with one vector, as in decoding one
row, which TPU programs write as elementwise work. Bytes are those of arrays in HBM, without padding to
tiles; of an array that a fusion only slices, or only updates a slice of, the slice counts.
"""

import re
from functools import lru_cache
from math import prod

import numpy as np

from mufun_jax.plan.hlo import HBM, HOST, Computation, HloProgram, Instruction, Shape

_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "partition-id",
    "replica-id",
    "after-all",
    "optimization-barrier",
    "async-update",
}
_ALIASING = {"AsyncCollectiveStart", "AsyncCollectiveDone", "AllocateBuffer"}  # custom calls that move nothing
_KERNEL = "tpu_custom_call"
# Matrix products of length x length x head size in a splash attention kernel: forward 2; backward for queries 3 (the
# logits again, the weights' gradient, the queries'), for keys and values 4, all fused 5.
_FORWARD, _DQ, _DKV, _FUSED_BACKWARD = 2, 3, 4, 5


def flops(program: HloProgram, computation: Computation, instruction: Instruction) -> int:
    """FLOPs of one run of an instruction, of what a fusion fuses too."""
    match instruction.opcode:
        case "dot":
            return _dot_flops(computation, instruction)
        case "convolution":
            return _convolution_flops(computation, instruction)
        case "custom-call" if is_kernel(instruction):
            return kernel_flops(computation, instruction) or 0
        case "fusion":
            called = program.computations[instruction.called("calls")]
            return sum(flops(program, called, inner) for inner in called.instructions.values())
        case _:
            return 0


def is_kernel(instruction: Instruction) -> bool:
    """Whether an instruction is a Pallas kernel."""
    return instruction.opcode == "custom-call" and f'custom_call_target="{_KERNEL}"' in instruction.attributes


def is_attention_kernel(instruction: Instruction) -> bool:
    return is_kernel(instruction) and re.search(r"splash_m[hq]a_(fwd|dq|dkv)", _kernel_name(instruction)) is not None


def kernel_flops(computation: Computation, instruction: Instruction) -> int | None:
    """FLOPs of a splash attention kernel (jax.experimental.pallas.ops.tpu.splash_attention); None for another.

    Queries are [..., heads, length, head size]. With a causal mask, which shows in the kernel's operand of query
    positions, blocks above the diagonal are not computed: of n x n blocks, n (n + 1) / 2 are.
    """
    name = _kernel_name(instruction)
    if not is_attention_kernel(instruction):
        return None
    operands = [each.shapes[0] for each in computation.operands(instruction)]
    queries, keys = [shape for shape in operands if shape.dtype in ("bf16", "f32", "f16")][:2]
    *heads, length, head_size = queries.dims
    kv_length = keys.dims[-2]
    block = _block_sizes(instruction)
    if "_dkv" in name:
        gradients = sum(len(shape.dims) >= len(queries.dims) for shape in instruction.shapes)
        products = _FUSED_BACKWARD if gradients > 2 else _DKV
        sizes = block.get("block_q_dkv", length), block.get("block_kv_dkv", kv_length)
    elif "_dq" in name:
        products, sizes = _DQ, (block.get("block_q_dq", length), block.get("block_kv_dq", kv_length))
    else:
        products, sizes = _FORWARD, (block.get("block_q", length), block.get("block_kv", kv_length))
    causal = any(shape.dtype == "s32" and len(shape.dims) == 2 for shape in operands)
    computed = _causal_positions(length, kv_length, *sizes) if causal else length * kv_length
    return 2 * products * prod(heads) * computed * head_size


def hbm_bytes(program: HloProgram, computation: Computation, instruction: Instruction) -> int:
    """Bytes that one run of an instruction reads from HBM and writes to it."""
    operands = [each.shapes for each in computation.operands(instruction)]
    match instruction.opcode:
        case opcode if opcode in _FREE or opcode.endswith("-done"):
            return 0
        case "custom-call" if _target(instruction) in _ALIASING:
            return 0
        case "fusion":
            return _fusion_bytes(program, computation, instruction)
        case "dynamic-slice" | "slice" | "gather":
            return (
                2 * _in_hbm(instruction.shapes) if operands[0][0].memory_space == HBM else _in_hbm(instruction.shapes)
            )
        case "dynamic-update-slice":
            return 2 * _in_hbm(operands[1])
        case "copy-start" | "slice-start" | "dynamic-slice-start":
            moved = min((shape.nbytes for shape in instruction.shapes if shape.dims), default=0)
            return moved * sum(shape.memory_space == HBM for shape in instruction.shapes if shape.dims)
        case _:
            return _in_hbm(instruction.shapes) + sum(map(_in_hbm, operands))


def host_bytes(computation: Computation, instruction: Instruction) -> int:
    """Bytes that one run of an instruction moves between a device and its host's memory."""
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return 0
    arrays = [shape for each in computation.operands(instruction) for shape in each.shapes] + list(instruction.shapes)
    if not any(shape.memory_space == HOST for shape in arrays):
        return 0
    return min((shape.nbytes for shape in arrays if shape.dims), default=0)


def _fusion_bytes(program: HloProgram, computation: Computation, instruction: Instruction) -> int:
    called = program.computations[instruction.called("calls")]
    read = 0
    for number, operand in enumerate(computation.operands(instruction)):
        if operand.shapes[0].memory_space == HBM:
            read += min(_read_bytes(program, called, called.parameters[number]), _in_hbm(operand.shapes))
    return read + sum(_written_bytes(called, each) for each in _results(called))


def _results(called: Computation) -> list[Instruction]:
    return called.operands(called.root) if called.root.opcode == "tuple" else [called.root]


def _read_bytes(program: HloProgram, called: Computation, parameter: Instruction) -> int:
    """What a fusion reads of one operand, in bytes."""
    whole = sum(shape.nbytes for shape in parameter.shapes)
    return _read_elements(program, called, parameter) * whole // max(1, parameter.shapes[0].size)


def _read_elements(program: HloProgram, called: Computation, parameter: Instruction) -> int:
    """How much a fusion reads of one operand: the slices, where it only slices it; nothing where it only passes it
    on."""
    whole, elements, waiting = parameter.shapes[0].size, 0, [parameter]
    while waiting:
        for user in called.users[(source := waiting.pop()).name]:
            if user.opcode == "bitcast" or (_moves_all(program, user) and not user.is_root):
                waiting.append(user)  # computed only where what follows needs it
            elif user.opcode in ("dynamic-slice", "slice", "gather") and user.operands[0] == source.name:
                elements += user.shapes[0].size
            elif user.opcode == "fusion":  # one inside the other
                inner = program.computations[user.called("calls")]
                for number in (at for at, name in enumerate(user.operands) if name == source.name):
                    elements += _read_elements(program, inner, inner.parameters[number])
            elif not _only_passes(user, source):
                return whole
    return min(whole, elements)


def _moves_all(program: HloProgram, instruction: Instruction) -> bool:
    """Whether an instruction inside a fusion only moves or converts its operand's elements."""
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.called("calls")]
        moves = (each.opcode == "parameter" or _moves_all(program, each) for each in inner.instructions.values())
        return len(instruction.operands) == 1 and all(moves)
    return instruction.opcode in ("bitcast", "copy", "convert", "reshape", "transpose")


def _only_passes(user: Instruction, source: Instruction) -> bool:
    """Whether an instruction reads nothing of an operand: updates it in place, sends it, or carries it along."""
    if user.opcode == "dynamic-update-slice":
        return user.operands[0] == source.name
    return user.opcode == "tuple" or _is_sent(user)


def _written_bytes(called: Computation, result: Instruction) -> int:
    while result.opcode == "bitcast":
        result = called.instructions[result.operands[0]]
    if result.opcode == "parameter" or _is_sent(result):
        return 0
    if result.opcode == "dynamic-update-slice":
        update = called.instructions[result.operands[1]]
        return update.shapes[0].nbytes if result.shapes[0].memory_space == HBM else 0
    return _in_hbm(result.shapes)


def _is_sent(instruction: Instruction) -> bool:
    """What moves over links inside a fusion is the collective's to count."""
    return _target(instruction) in _ALIASING or instruction.opcode.startswith(("all-", "reduce-scatter", "collective-"))


def _in_hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.nbytes for shape in shapes if shape.memory_space == HBM)


def _target(instruction: Instruction) -> str:
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return found[1] if found and instruction.opcode == "custom-call" else ""


def _dot_flops(computation: Computation, instruction: Instruction) -> int:
    left = computation.operands(instruction)[0].shapes[0]
    contracted = _numbers(instruction.attribute("lhs_contracting_dims"))
    return 2 * instruction.shapes[0].size * prod(left.dims[axis] for axis in contracted)


def _convolution_flops(computation: Computation, instruction: Instruction) -> int:
    """As XLA's HloCostAnalysis: multiply-adds with padding, or with holes of a dilated input, are not counted.

    TPU programs write matrix products as convolutions, batch axes as windows with padding.
    """
    left, right = (each.shapes[0] for each in computation.operands(instruction))
    labels = instruction.attribute("dim_labels")
    assert labels is not None
    into, kernel, out = re.split("_|->", labels)
    groups = int(instruction.attribute("feature_group_count") or 1)
    batch_groups = int(instruction.attribute("batch_group_count") or 1)
    window = _window(instruction)
    positions = 1
    for axis in range(len(into) - 2):
        input_size = left.dims[into.index(str(axis))]
        output_size = instruction.shapes[0].dims[out.index(str(axis))]
        size = right.dims[kernel.index(str(axis))]
        positions *= _valid_positions(input_size, output_size, size, *(each[axis] for each in window))
    features = left.dims[into.index("f")] // groups
    return (
        2 * positions * features * instruction.shapes[0].dims[out.index("f")] * left.dims[into.index("b")]
    ) // batch_groups


def _window(instruction: Instruction) -> tuple[list[int], list[int], list[int], list[int]]:
    """Stride, low padding, dilation of the input and of the kernel, for each axis."""
    text = instruction.attribute("window") or "{}"
    words = dict(word.split("=") for word in text.strip("{}").split() if "=" in word)
    axes = len(words["size"].split("x")) if "size" in words else 0

    def each(name: str, default: str) -> list[int]:
        return [int(value.split("_")[0]) for value in words.get(name, "x".join([default] * axes)).split("x") if value]

    return each("stride", "1"), each("pad", "0"), each("lhs_dilate", "1"), each("rhs_dilate", "1")


@lru_cache(maxsize=4096)
def _valid_positions(
    input_size: int, output_size: int, size: int, stride: int, pad: int, dilation: int, kernel_dilation: int
) -> int:
    """Pairs of output and kernel positions that meet an input element."""
    at = np.arange(output_size)[:, None] * stride + np.arange(size)[None] * kernel_dilation - pad
    return int(((at >= 0) & (at % dilation == 0) & (at // dilation < input_size)).sum())


def _kernel_name(instruction: Instruction) -> str:
    return f"{instruction.name} {instruction.op_name}"


def _block_sizes(instruction: Instruction) -> dict[str, int]:
    """The block sizes that a kernel notes in its metadata."""
    return {name: int(size) for name, size in re.findall(r'"(block_\w+)\\?": (\d+)', instruction.attributes)}


def _causal_positions(length: int, kv_length: int, block: int, kv_block: int) -> int:
    """Query-key pairs in the blocks that a causal mask leaves; queries are the last of the sequence or all of it.

    A part of a longer sequence, as with context parallelism, is taken as half of all pairs: its share on average.
    """
    if length != kv_length:
        return length * kv_length // 2
    first_query = np.arange(0, length, block)[:, None]
    first_key = np.arange(0, kv_length, kv_block)[None]
    return int((first_key <= first_query + block - 1).sum()) * block * kv_block


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text or "")]
