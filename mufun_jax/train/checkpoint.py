"""Checkpoints of training: everything that a stopped run needs to go on as if nothing had happened.

    workdir/checkpoints/<global step>/    state (arrays), meta (JSON), and the seals of all their files
    workdir/damaged/<global step>         what did not verify, put aside

A checkpoint is trusted when its files are as they were sealed, its meta has its own checksum, and every array has the
digest that it had on the devices.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, CustomSteps, EveryNSteps, LatestN

from mufun_jax.config import CheckpointConfig, RunConfig
from mufun_jax.config_file import difference, to_json, validate
from mufun_jax.errors import CheckpointError, LostProcessError, UserError
from mufun_jax.sharding.processes import first_fault, is_first, is_lost_connection, said_by_first, wait_for_all
from mufun_jax.train.digest import Digests, digest_tree
from mufun_jax.train.seal import find_damage, is_sealed, write_seal
from mufun_jax.train.state import Saved
from mufun_jax.weights.params import Params

_FORMAT = 4
_FOR_EVER = 10**9  # seconds
_STEPS_BETWEEN_CLOCKS = 10  # where several processes have to agree on the time
_UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of a folder whose save was cut short
# What may differ from the config that a checkpoint was written with: where and how a run computes, not what.
_MAY_DIFFER = (
    "mesh",
    "data",
    "loader_workers",
    "checkpoint",
    "evaluation",
    "guard",
    "watch",
    "dashboards",
    "compute_dtype",
    "param_dtype",
    "attention",
    "ring",
)


class DamagedCheckpointError(CheckpointError):
    """A checkpoint did not verify; it has been put aside, and the one before may be used."""


@dataclass(frozen=True)
class Position:
    """Where in the curriculum a checkpoint was taken: `step` steps of `stage` are done."""

    stage: str
    step: int
    global_step: int  # steps of all stages so far
    data: dict[str, Any] = field(default_factory=dict)  # the loader's place, the same on every process
    loss: float | None = None  # of its last step, in nats a target token
    evaluation_loss: float | None = None


@dataclass
class _Best:
    """Keeps the checkpoints of least evaluation loss."""

    losses: dict[int, float]  # by global step
    count: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = sorted((one.step for one in checkpoints if one.step in self.losses), key=lambda step: self.losses[step])
        return [one.step in steps[: self.count] for one in checkpoints]


class Checkpoints:
    """The checkpoints of a run.

    One save is what trains in float32, the optimizer state, the step and the frozen parts (`state`), and the place in
    the curriculum and in the data, the whole config, the digests and a format version (`meta`). Training draws no
    random numbers after a stage has begun, so there is no random key to keep. All methods are collective.
    """

    def __init__(self, workdir: Path, config: CheckpointConfig, on_event: Callable[..., None]):
        """`on_event` is called with "saved" or "damaged" and a sentence; for "saved" also with its `global_step`, and
        the `seconds` that training waited for it."""
        self._folder, self._aside = (workdir / "checkpoints").absolute(), (workdir / "damaged").absolute()
        self._config, self._on_event = config, on_event
        self._opened: ocp.CheckpointManager | None = None
        self._stage_ends: Sequence[int] = ()
        self._best = _Best({}, config.keep_best)
        self._digests: Digests = {}  # of the checkpoint that is being restored
        self._unsealed: int | None = None  # the step of the save under way
        self._sealing: Future[None] | None = None
        self._saved = time.monotonic()  # when a save last began
        self._held_up = 0.0  # seconds that training waited for the save under way
        self._sealer = ThreadPoolExecutor(1, "seal")

    def plan(self, stage_ends: Sequence[int], evaluation_losses: dict[int, float]) -> None:
        """Says, before the first save, at which global steps stages end, and which evaluation losses are known."""
        self._stage_ends = stage_ends
        self._best.losses.update(evaluation_losses)

    def latest(self, run: RunConfig) -> Position | None:
        """The place of the newest checkpoint that is whole, or None in a fresh workdir. Damaged ones are put aside.

        Raises:
            CheckpointError: no checkpoint is whole, or it was written by another config; names the first key that
                differs. Where and how the run computes may differ: mesh, dtypes, data folder, kernels, rules of saving.
        """
        self._tell_unfinished()
        steps = list_steps(self._folder)
        for step in reversed(steps):
            self._check_format(step)
            fault = first_fault(self._find_fault(step))
            if fault is None:
                meta = read_meta(self._folder / str(step))
                self._check_config(run, meta)
                self._digests = meta["digests"]
                return position_of(step, meta)
            self._put_aside(step, fault)
        if steps:
            raise CheckpointError(
                f"{self._folder}: none of its {len(steps)} checkpoints is whole, they are in {self._aside}; bring one "
                "back from a copy, or begin in another --workdir"
            )
        return None

    def restore(self, position: Position, like: Saved) -> Saved:
        """The state at the place that `latest` gave, in the shardings of `like`.

        Raises DamagedCheckpointError where an array cannot be read or has another digest; `latest` then gives the one
        before.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        fault, saved = None, None
        try:
            restored = self._manager.restore(
                position.global_step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes)),  # pyright: ignore[reportCallIssue]
            )
            saved = restored["state"]
        except Exception as error:
            # Files that are as they were sealed are not damaged: no memory, or another process gone, is no fault of
            # theirs. Of others, whatever the readers of damaged bytes say is a fault.
            if is_sealed(self._folder / str(position.global_step)) or is_lost_connection(error):
                raise
            fault = f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        if saved is not None:
            found = {**digest_trained(saved), **digest_frozen(saved["frozen"])}
            different = [name for name, digest in found.items() if self._digests.get(name) != digest]
            fault = f"state: the array {different[0]} is not as it was saved" if different else None
        fault = first_fault(fault)
        if fault is not None:
            self._put_aside(position.global_step, fault)
            raise DamagedCheckpointError(f"{self._folder / str(position.global_step)}: {fault}")
        assert saved is not None
        return saved

    def save(self, run: RunConfig, position: Position, saved: Saved, frozen_digests: Digests) -> None:
        """Starts a save; it finishes in the background. The frozen parts' digests are those of the stage's start."""
        self.finish()
        meta = {
            "format": _FORMAT,
            "stage": position.stage,
            "step": position.step,
            "data": position.data,
            "loss": position.loss,
            "evaluation_loss": position.evaluation_loss,
            "time": time.time(),
            "config": to_json(run),
            "digests": {**digest_trained(saved), **frozen_digests},
        }
        if position.evaluation_loss is not None:
            self._best.losses[position.global_step] = position.evaluation_loss
        self._unsealed, self._saved = position.global_step, time.monotonic()
        began = time.perf_counter()
        with self._saying_what_failed():
            self._manager.save(
                position.global_step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(saved),  # pyright: ignore[reportCallIssue]
                    meta=ocp.args.JsonSave({**meta, "checksum": _checksum(meta)}),  # pyright: ignore[reportCallIssue]
                ),
                force=True,
            )
        self._held_up += time.perf_counter() - began

    def due(self, global_step: int) -> bool:
        """Whether the rules want a save after a step. The minutes are those of process 0, asked for now and then."""
        if global_step % self._config.every_steps == 0:
            return True
        if jax.process_count() > 1 and global_step % _STEPS_BETWEEN_CLOCKS:
            return False
        return said_by_first(time.monotonic() - self._saved > 60 * self._config.every_minutes)

    def seal_finished(self) -> None:
        """Seals a save that has finished in the background, in the background. Raises UserError where it failed."""
        if self._sealing is not None and self._sealing.done():
            self._end_sealing()
        if self._unsealed is not None and not self._manager.is_saving_in_progress():
            self.finish(wait_for_seal=False)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, LostProcessError):  # a save that all take part in will not finish any more
            self._sealer.shutdown(wait=False, cancel_futures=True)
        else:
            self.close()

    def close(self) -> None:
        """Waits for saves under way, and their seals."""
        try:
            self.finish()
        finally:
            self._sealer.shutdown()
            if self._opened is not None:
                opened, self._opened = self._opened, None
                opened.close()

    @property
    def _manager(self) -> ocp.CheckpointManager:
        """Opened after the newest checkpoint was verified."""
        if self._opened is None:
            config = self._config
            kept: list[Any] = [LatestN(config.keep), CustomSteps(self._stage_ends), self._best]
            if config.keep_every is not None:
                kept.append(EveryNSteps(interval_steps=config.keep_every))
            options = ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(kept),
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
                # By the wall clock, which may jump. A save that hangs is for the watch to end.
                async_options=ocp.AsyncOptions(timeout_secs=_FOR_EVER),
            )
            _share_replicas(jax.process_count() > 1)
            self._opened = ocp.CheckpointManager(self._folder, options=options)
        return self._opened

    def finish(self, *, wait_for_seal: bool = True) -> None:
        """Waits for the save under way and begins to seal it."""
        if self._unsealed is not None:
            step = self._unsealed
            with self._saying_what_failed():
                self._manager.wait_until_finished()
            self._unsealed = None
            if self._sealing is not None:
                self._end_sealing()
            folder = self._folder / str(step)
            self._sealing = self._sealer.submit(write_seal, folder, jax.process_index(), jax.process_count())
            self._on_event("saved", f"step {step} is saved", global_step=step, seconds=self._held_up)
            self._held_up = 0.0
        if wait_for_seal and self._sealing is not None:
            self._end_sealing()

    def _end_sealing(self) -> None:
        assert self._sealing is not None
        sealing, self._sealing = self._sealing, None
        with self._saying_what_failed():
            sealing.result()

    @contextmanager
    def _saying_what_failed(self) -> Iterator[None]:
        """A save that fails is the user's to mend, and a full disk has as many names as there are layers above it.
        Where another process is gone there is nothing to mend: that is raised as it is."""
        try:
            yield
        except Exception as error:
            if is_lost_connection(error):
                raise
            raise self._save_error(error) from error

    def _save_error(self, error: Exception) -> UserError:
        step = self._unsealed or "the last save"
        self._unsealed = None
        whole = [other for other in list_steps(self._folder) if other != step]
        rest = f"the checkpoint of step {whole[-1]} stays" if whole else "there is none before it"
        said = " ".join(str(error).split())
        for word in (
            "No space left on device",
            "Read-only file system",
            "Permission denied",
            "Operation not permitted",
        ):
            said = word if word.lower() in said.lower() else said
        return UserError(
            f"{self._folder / str(step)}: could not be saved ({said[:300]}); {rest}: mend it, run it again"
        )

    def _find_fault(self, step: int) -> str | None:
        """What is wrong with the files and the meta of a checkpoint. Each process looks at its share."""
        folder = self._folder / str(step)
        if is_sealed(folder):
            fault = find_damage(folder, jax.process_index(), jax.process_count())
            if fault is not None:
                return fault
        return meta_fault(folder)

    def _check_format(self, step: int) -> None:
        """A checkpoint of an earlier version, which had no checksum, is not damaged. Raises CheckpointError."""
        try:
            meta = read_meta(self._folder / str(step))
        except (OSError, ValueError, RecursionError):
            return  # it is damaged; what about it, is found next
        if isinstance(meta, dict) and "checksum" not in meta and meta.get("format") in range(1, _FORMAT):
            raise CheckpointError(f"{self._folder}: checkpoint format {meta['format']}, this reads {_FORMAT}")

    def _check_config(self, run: RunConfig, meta: dict[str, Any]) -> None:
        saved = validate(RunConfig, meta["config"], str(self._folder))
        changed = difference(replace(saved, **{name: getattr(run, name) for name in _MAY_DIFFER}), run)
        if changed:
            raise CheckpointError(
                f"{self._folder} was written with another config ({changed}); take that one, or another --workdir"
            )

    def _put_aside(self, step: int, fault: str) -> None:
        wait_for_all("a damaged checkpoint is put aside")
        target = self._aside / str(step)
        if is_first():
            self._aside.mkdir(exist_ok=True)
            if target.exists():
                shutil.rmtree(target)
            (self._folder / str(step)).rename(target)
        wait_for_all("a damaged checkpoint was put aside")
        if self._opened is not None:
            self._opened.reload()
        self._on_event("damaged", f"the checkpoint of step {step} is damaged ({fault}); it was moved to {target}")

    def _tell_unfinished(self) -> None:
        for path in sorted(self._folder.glob(f"*{_UNFINISHED}*")) if self._opened is None else ():
            step = path.name.partition(".")[0]
            self._on_event("damaged", f"the save of step {step} was cut short")


def digest_trained(saved: Saved) -> Digests:
    """Of all but the frozen parts, which do not change while a stage lasts."""
    return digest_tree({name: tree for name, tree in saved.items() if name != "frozen"})


def digest_frozen(frozen: Params) -> Digests:
    return digest_tree({"frozen": frozen})


def list_steps(folder: Path) -> list[int]:
    """The global steps of the checkpoints in a folder, rising."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def read_meta(folder: Path) -> dict[str, Any]:
    """The meta of one checkpoint, as it stands. By no reader of Orbax's, which all look for devices: those of a TPU
    host may be in use by the run itself."""
    return json.loads((folder / "meta" / "metadata").read_text("utf-8"))


def meta_fault(folder: Path) -> str | None:
    """What is wrong with the meta of a checkpoint, or None."""
    try:
        meta = read_meta(folder)
    except (OSError, ValueError, RecursionError) as error:
        return f"meta cannot be read ({type(error).__name__})"
    if not isinstance(meta, dict) or meta.pop("checksum", None) != _checksum(meta):
        return "meta is not as it was written"
    return None


def position_of(step: int, meta: dict[str, Any]) -> Position:
    return Position(meta["stage"], meta["step"], step, meta["data"], meta["loss"], meta["evaluation_loss"])


def _share_replicas(share: bool) -> None:
    """Whether each of several copies of an array writes a part of it. Within one process that only cuts the arrays up,
    one after the other, while training waits. Orbax has no place for this but its table of types."""
    handler = ocp.type_handlers.ArrayHandler(use_replica_parallel=share)
    ocp.type_handlers.register_type_handler(jax.Array, handler, override=True)


def _checksum(meta: dict[str, Any]) -> str:
    """Of the values as JSON has them: written and read, they are the same."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
