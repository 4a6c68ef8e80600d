"""A compiled program as the planner sees it: its loops and what runs outside of them, with what each turn costs."""

from collections.abc import Iterator
from dataclasses import dataclass

from mufun_jax.plan.collectives import KINDS, Collective, chained_channels, collectives_of
from mufun_jax.plan.cost import flops, hbm_bytes, host_bytes, is_attention_kernel, is_kernel, kernel_flops
from mufun_jax.plan.hlo import HloProgram, parse_hlo
from mufun_jax.plan.loops import Run, runs

_TRANSFERS = (
    "copy-start",
    "slice-start",
    "dynamic-slice-start",
    "all-",
    "collective-",
    "reduce-scatter",
    "send",
    "recv",
)


@dataclass(frozen=True)
class Work:
    """One instruction that computes. A `transfer` moves bytes beside the instructions that follow it."""

    flops: int
    hbm_bytes: int
    host_bytes: int = 0
    attention: bool = False
    transfer: bool = False


@dataclass(frozen=True)
class Region:
    """A loop's body, or what runs outside of loops: costs are of one of its `times` turns."""

    name: str
    times: int
    work: tuple[Work, ...]
    collectives: tuple[Collective, ...]
    is_loop: bool
    counted: bool = True  # false where the number of turns depends on data: one is taken

    @property
    def flops(self) -> int:
        return sum(each.flops for each in self.work)

    @property
    def hbm_bytes(self) -> int:
        return sum(each.hbm_bytes for each in self.work)


@dataclass(frozen=True)
class Program:
    """All regions of a program, in the order in which they start, and kernels that could not be counted."""

    hlo: HloProgram
    regions: tuple[Region, ...]
    unknown_kernels: tuple[str, ...]

    @property
    def flops(self) -> int:
        """FLOPs of one device in one run of the program."""
        return sum(region.times * region.flops for region in self.regions)

    @property
    def hbm_bytes(self) -> int:
        return sum(region.times * region.hbm_bytes for region in self.regions)

    def collectives(self) -> Iterator[tuple[Region, Collective]]:
        for region in self.regions:
            for collective in region.collectives:
                yield region, collective

    def collective_bytes(self, *, between_slices: bool = False) -> dict[str, float]:
        """Bytes that each device sends over the links of its slice, or else between slices, by kind of collective."""
        sent: dict[str, float] = dict.fromkeys(KINDS, 0.0)
        for region, collective in self.collectives():
            if collective.between_slices == between_slices:
                sent[collective.kind] += region.times * collective.sent_bytes
        return sent


def read_program(text: str, devices: int, slices: int = 1) -> Program:
    """Reads the text of a program that was compiled for so many devices of all slices (`Compiled.as_text()`)."""
    hlo = parse_hlo(text)
    chained = chained_channels(hlo)
    regions, unknown = [], []
    for run in runs(hlo):
        regions.append(_region(hlo, run, tuple(collectives_of(hlo, run.computation, devices, slices, chained))))
        unknown += [
            each.name
            for each in run.computation.instructions.values()
            if is_kernel(each) and kernel_flops(run.computation, each) is None
        ]
    return Program(hlo, tuple(regions), tuple(unknown))


def _region(hlo: HloProgram, run: Run, collectives: tuple[Collective, ...]) -> Region:
    work = []
    for instruction in run.computation.instructions.values():
        done = Work(
            flops(hlo, run.computation, instruction),
            hbm_bytes(hlo, run.computation, instruction),
            host_bytes(run.computation, instruction),
            attention=is_attention_kernel(instruction),
            transfer=instruction.opcode.startswith(_TRANSFERS),
        )
        if done.flops or done.hbm_bytes or done.host_bytes:
            work.append(done)
    return Region(run.name, run.times, tuple(work), collectives, run.loop is not None, run.counted)
