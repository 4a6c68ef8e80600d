"""A plan: one program of a run compiled for a topology that need not be there, and what that says."""

import time
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from mufun_jax.config import RunConfig, StageConfig
from mufun_jax.errors import ConfigError, nearest
from mufun_jax.generate.programs import without_cache
from mufun_jax.model.flops import ModelFlops, decode_flops, prefill_flops, train_flops
from mufun_jax.plan.estimate import Estimate, estimate, utilization
from mufun_jax.plan.inference import Weights, abstract_cache, check_rows, lower_decode, lower_prefill, served_params
from mufun_jax.plan.memory import Memory, bytes_per_device, memory_of, memory_refused
from mufun_jax.plan.network import Network
from mufun_jax.plan.program import Program, read_program
from mufun_jax.plan.topology import Topology, check_mesh, make_topology_mesh
from mufun_jax.plan.variant import Variant, variant_of
from mufun_jax.train.abstract import abstract_batch, abstract_state, lower_train_step
from mufun_jax.weights.params import abstract_params, count_params

ProgramKind = Literal["train", "prefill", "decode"]


@dataclass(frozen=True)
class Request:
    """What to plan. `rows` and `weights` are of prefill and decode; a train step has its stage's."""

    run: RunConfig
    stage_name: str
    topology: Topology
    program: ProgramKind = "train"
    weights: Weights = "bfloat16"
    rows: int = 1

    @property
    def stage(self) -> StageConfig:
        return self.run.stages[self.stage_name]

    @property
    def variant(self) -> Variant:
        return variant_of(self.run, self.stage_name)

    @property
    def batch_rows(self) -> int:
        return self.stage.rows if self.program == "train" else self.rows

    def check(self) -> None:
        """Raises ConfigError for what cannot be: before the compiler is loaded."""
        if self.stage_name not in self.run.stages:
            known = list(self.run.stages)
            raise ConfigError(
                f"--stage {self.stage_name}: no such stage{nearest(self.stage_name, known)}; known: {', '.join(known)}"
            )
        check_mesh(self.run.mesh, self.topology)
        if self.program == "train":
            if self.rows != 1:
                raise ConfigError(
                    f"--rows {self.rows} is for prefill and decode; a stage has {self.stage.rows}: "
                    f"--set stages.{self.stage_name}.rows={self.rows}"
                )
            if self.weights != "bfloat16":
                raise ConfigError(f"--weights {self.weights} is for --program prefill and decode; training has its own")
        else:
            check_rows(self.rows, dict(zip(("data", "fsdp"), self.run.mesh.shape, strict=False)))


@dataclass(frozen=True)
class Plan:
    """What a compiled program holds, computes and sends, and how long a run of it is predicted to take.

    `program` and `prediction` are None where the compiler refused the program because it is too large.
    """

    request: Request
    memory: Memory
    parameters: int
    model_flops: ModelFlops
    program: Program | None
    prediction: Estimate | None
    compile_seconds: float

    @property
    def fits(self) -> bool:
        return self.program is not None and self.memory.fits

    @property
    def mfu(self) -> float | None:
        if self.prediction is None:
            return None
        topology = self.request.topology
        return utilization(self.model_flops.total, self.prediction.seconds, topology.devices, topology.chip)

    @property
    def tokens_per_second(self) -> float | None:
        """Positions a second of all rows, audio and padding among them; in decoding, new tokens."""
        positions = 1 if self.request.program == "decode" else self.request.stage.positions
        return self._per_second(self.request.batch_rows * positions)

    @property
    def songs_per_second(self) -> float | None:
        """Files of the stage's longest length a second, as many in a row as its windows hold; none in decoding."""
        if self.request.program == "decode":
            return None
        stage, encoder = self.request.stage, self.request.run.model.encoder
        windows_each = min(stage.windows, ceil(stage.longest_audio / encoder.window_seconds))
        return self._per_second(self.request.batch_rows * (stage.windows // windows_each))

    def _per_second(self, amount: int) -> float | None:
        return None if self.prediction is None else amount / self.prediction.seconds


def make_plan(request: Request) -> Plan:
    """Compiles the program of a request on this machine (minutes for the full model) and reads what came out.

    Raises ConfigError, before anything is compiled, for a mesh or rows that do not match the devices.
    """
    request.check()
    mesh = make_topology_mesh(request.run.mesh, request.topology)
    limit = request.topology.chip.memory_bytes
    parameters, optimizer, inputs = _argument_bytes(request, mesh)
    known = {"parameters": count_params(abstract_params(request.run.model)), "model_flops": _model_flops(request)}
    started = time.perf_counter()
    try:
        with without_cache():  # a program for devices that are not there cannot be read back from it
            compiled = _lower(request, mesh).compile()
    except jax.errors.JaxRuntimeError as error:
        refused = memory_refused(str(error), parameters, optimizer, inputs, limit)
        if refused is None:
            raise
        return Plan(request, refused, **known, program=None, prediction=None, compile_seconds=_since(started))
    seconds = _since(started)
    text = compiled.as_text()
    assert text is not None
    program = read_program(text, request.topology.devices, request.topology.slices)
    return Plan(
        request,
        memory_of(compiled, parameters, optimizer, inputs, limit),
        **known,
        program=program,
        prediction=estimate(program, Network.of(mesh, request.topology)),
        compile_seconds=seconds,
    )


def _lower(request: Request, mesh: Mesh) -> jax.stages.Lowered:
    stage, model = request.stage, request.run.model
    match request.program:
        case "train":
            return lower_train_step(request.run, stage, mesh)
        case "prefill":
            return lower_prefill(model, request.rows, stage.windows, stage.positions, request.weights, mesh)
        case "decode":
            return lower_decode(model, request.rows, stage.positions, request.weights, mesh)


def _argument_bytes(request: Request, mesh: Mesh) -> tuple[int, int, int]:
    """Bytes on each chip of parameters, optimizer state, and batch or cache."""
    stage, model = request.stage, request.run.model
    if request.program == "train":
        state, frozen = abstract_state(request.run, stage, mesh)
        batch = abstract_batch(model, stage, mesh)
        optimizer = bytes_per_device((state.opt_state, state.precise))
        return bytes_per_device((state.trained, frozen)), optimizer, bytes_per_device(batch)
    cache: Any = ()
    if request.program == "decode":
        cache = abstract_cache(model, request.rows, stage.positions, mesh)
    return bytes_per_device(served_params(model, request.weights, mesh)), 0, bytes_per_device(cache)


def _model_flops(request: Request) -> ModelFlops:
    stage, model = request.stage, request.run.model
    match request.program:
        case "train":
            return train_flops(model, stage)
        case "prefill":
            return prefill_flops(model, request.rows, stage.windows, stage.positions)
        case "decode":
            return decode_flops(model, request.rows, stage.positions)


def _since(started: float) -> float:
    return time.perf_counter() - started
