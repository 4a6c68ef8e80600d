"""Checkpoints of training: everything that a killed run needs to go on as if nothing had happened."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from mufun_jax.config import CheckpointConfig, RunConfig, difference, to_json, validate
from mufun_jax.errors import CheckpointError
from mufun_jax.train.state import TrainState
from mufun_jax.weights.params import Params

_FORMAT = 3
Saved = tuple[TrainState, Params]  # what trains, and the frozen parts in full precision


@dataclass(frozen=True)
class Position:
    """Where in the curriculum a checkpoint was taken: `step` steps of `stage` are done."""

    stage: str
    step: int
    global_step: int  # steps of all stages so far
    data: dict[str, Any] = field(default_factory=dict)  # the loader's place, the same on every process


class Checkpoints:
    """The checkpoints of a run, in `workdir/checkpoints/<global step>/`.

    One save is what trains, the optimizer state, the step and the frozen parts (`state`), and the place in the
    curriculum and in the data, the whole config and a format version (`meta`). Training draws no random numbers after
    a stage has begun, so there is no random key to keep.
    """

    def __init__(self, workdir: Path, config: CheckpointConfig):
        options = ocp.CheckpointManagerOptions(max_to_keep=config.keep, enable_async_checkpointing=True)
        self._folder = (workdir / "checkpoints").absolute()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, run: RunConfig, position: Position, state: Saved) -> None:
        """Starts a save; it finishes in the background."""
        place = {"stage": position.stage, "step": position.step, "data": position.data}
        meta = {"format": _FORMAT, **place, "config": to_json(run)}
        self._manager.save(
            position.global_step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),  # pyright: ignore[reportCallIssue]
                meta=ocp.args.JsonSave(meta),  # pyright: ignore[reportCallIssue]
            ),
        )

    def latest(self, run: RunConfig) -> Position | None:
        """The place of the newest checkpoint, or None in a fresh workdir.

        Raises:
            CheckpointError: it was written by another config; names the first key that differs. The mesh may: it
                changes where a run computes, not what.
        """
        global_step = self._manager.latest_step()
        if global_step is None:
            return None
        restored = self._manager.restore(global_step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        meta = restored["meta"]
        if meta.get("format") != _FORMAT:
            raise CheckpointError(f"{self._folder}: checkpoint format {meta.get('format')}, this reads {_FORMAT}")
        saved = validate(RunConfig, meta["config"], str(self._folder))
        changed = difference(replace(saved, mesh=run.mesh, loader_workers=run.loader_workers), run)
        if changed:
            raise CheckpointError(
                f"{self._folder} was written with another config ({changed}); take that one, or another --workdir"
            )
        return Position(meta["stage"], meta["step"], global_step, meta["data"])

    def restore(self, position: Position, like: Saved) -> Saved:
        """The state at a place, in the shardings of `like`."""
        restored = self._manager.restore(
            position.global_step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(jax.tree.map(ocp.utils.to_shape_dtype_struct, like)),  # pyright: ignore[reportCallIssue]
            ),
        )
        state, frozen = restored["state"]
        return state, frozen

    def close(self) -> None:
        """Waits for saves under way."""
        self._manager.wait_until_finished()
        self._manager.close()
