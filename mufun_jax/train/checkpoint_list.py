"""The checkpoints of a run as a list, and whether their files are as they were sealed. Needs no device."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mufun_jax.errors import CheckpointError
from mufun_jax.train.checkpoint import list_steps, meta_fault, read_meta
from mufun_jax.train.seal import find_damage, is_sealed


@dataclass(frozen=True)
class ListedCheckpoint:
    """One checkpoint. What its meta would say is None where that cannot be read."""

    global_step: int
    stage: str | None
    step: int | None  # of the stage
    loss: float | None  # nats a target token, of its last step
    evaluation_loss: float | None
    saved: str | None  # date and time, ISO 8601, of this machine's time zone
    size: int  # bytes
    verifies: bool | None  # None: it was not sealed, its arrays are checked when it is restored
    fault: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def list_checkpoints(
    workdir: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[ListedCheckpoint]:
    """The checkpoints of a run, oldest first; `progress` gets how many are verified, and how many there are.

    Raises CheckpointError where there is no run, or no checkpoint of it yet.
    """
    folder = workdir / "checkpoints"
    steps = list_steps(folder)
    if not steps:
        raise CheckpointError(f"{workdir}: no checkpoints are here; give the --workdir of `mufun train`")
    listed = []
    for done, step in enumerate(steps):
        progress(done, len(steps))
        listed.append(_look_at(folder / str(step), step))
    progress(len(steps), len(steps))
    return listed


def _look_at(folder: Path, step: int) -> ListedCheckpoint:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    sealed = is_sealed(folder)
    fault = (find_damage(folder) if sealed else None) or meta_fault(folder)
    if fault is not None:
        return ListedCheckpoint(step, None, None, None, None, None, size, False, fault)
    meta = read_meta(folder)
    saved = datetime.fromtimestamp(meta["time"]).astimezone().isoformat(timespec="seconds")
    losses = meta["loss"], meta["evaluation_loss"]
    return ListedCheckpoint(step, meta["stage"], meta["step"], *losses, saved, size, True if sealed else None, None)
