"""Questions about a compiled program, for proofs of what it does and does not hold."""

from collections import Counter
from collections.abc import Iterator

from mufun_jax.plan.collectives import Collective
from mufun_jax.plan.cost import is_attention_kernel, is_kernel
from mufun_jax.plan.hlo import HloProgram, Shape
from mufun_jax.plan.program import Program

_SHAPELESS = ("parameter", "get-tuple-element", "tuple", "bitcast")


def arrays(program: HloProgram, *, inside_fusions: bool = False) -> Iterator[tuple[str, Shape]]:
    """Arrays that the program makes, by the instruction that makes each; those inside a fusion are never in memory."""
    fused = {
        name
        for _, instruction in program.instructions()
        if instruction.opcode == "fusion"
        for name in instruction.all_called()
    }
    for computation, instruction in program.instructions():
        if instruction.opcode not in _SHAPELESS and (inside_fusions or computation.name not in fused):
            for shape in instruction.shapes:
                yield instruction.name, shape


def holds_array(program: HloProgram, *sizes: int, inside_fusions: bool = False) -> str | None:
    """The instruction that makes an array with all of `sizes` among its dimensions (4,096 positions by 151,936 words,
    say); None where there is none. Where rows and positions may be folded into one, ask for their product too."""
    wanted = Counter(sizes)
    for name, shape in arrays(program, inside_fusions=inside_fusions):
        if wanted <= Counter(shape.dims):
            return name
    return None


def largest_array(program: HloProgram) -> tuple[str, Shape]:
    """The largest array that is made in memory, with the instruction that makes it."""
    return max(arrays(program), key=lambda pair: pair[1].nbytes)


def gathered_outside_loops(program: Program) -> int:
    """Bytes of the largest array that is gathered whole outside of all loops: a tree of stacked layers, if it is."""
    sizes = [
        each.nbytes
        for region, each in program.collectives()
        if not region.is_loop and each.kind in ("all-gather", "all-reduce")
    ]
    return max(sizes, default=0)


def reductions(program: Program, at_least: int) -> tuple[int, int]:
    """Bytes of reduce-scatters and of all-reduces in one run, of those that reduce so many bytes or more at once:
    weight gradients, where the bound is the size of a layer's weight."""
    scattered = reduced = 0
    for region, each in program.collectives():
        if each.nbytes >= at_least:
            scattered += region.times * each.nbytes * (each.kind == "reduce-scatter")
            reduced += region.times * each.nbytes * (each.kind == "all-reduce")
    return scattered, reduced


def large_collectives(program: Program, count: int = 20) -> list[tuple[str, int, Collective]]:
    """The collectives that send most in one run: region, turns, collective."""
    found = [(region.name, region.times, each) for region, each in program.collectives()]
    return sorted(found, key=lambda item: -item[1] * item[2].sent_bytes)[:count]


def attention_kernels(program: HloProgram) -> list[str]:
    """Names of the splash attention kernels in a program: forward, and backward for queries, keys and values."""
    return [each.name for _, each in program.instructions() if is_attention_kernel(each)]


def kernels(program: HloProgram) -> list[str]:
    """Names of all Pallas kernels in a program."""
    return [each.name for _, each in program.instructions() if is_kernel(each)]
