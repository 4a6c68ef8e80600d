"""Metrics for dashboards: TensorBoard in `WORKDIR/tensorboard`; Weights & Biases where the config names a project."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

from mufun_jax.config import DashboardConfig
from mufun_jax.config_file import to_json
from mufun_jax.errors import ConfigError
from mufun_jax.sharding.processes import is_first

_FLUSH_SECONDS = 10.0
_protos: Any = event_pb2  # made at run time: no type checker knows what is in it
_PLACES = ("stage", "step", "global_step", "skipped")


class Dashboards:
    """Writes each step's numbers, on process 0.

    Raises ConfigError where Weights & Biases is asked for and is not installed.
    """

    def __init__(self, workdir: Path, config: DashboardConfig, run: Any, resume_after: int):
        self._tensorboard = self._wandb = None
        if not is_first():
            return
        if config.wandb_project is not None:
            self._wandb = _start_wandb(workdir, config.wandb_project, run)
        if config.tensorboard:
            self._tensorboard = _TensorBoard(workdir / "tensorboard", resume_after + 1)

    def write(self, line: dict[str, Any]) -> None:
        numbers = {f"train/{name}": value for name, value in line.items() if isinstance(value, int | float)}
        numbers |= {f"loss_of/{name}": loss for name, loss in line.get("loss_of", {}).items()}
        numbers = {name: value for name, value in numbers.items() if name.partition("/")[2] not in _PLACES}
        if self._tensorboard is not None:
            self._tensorboard.write(numbers, line["global_step"])
        if self._wandb is not None:
            self._wandb.log({**numbers, "stage": line["stage"]}, step=line["global_step"])

    def flush(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


class _TensorBoard:
    """An event file, written at once. (tensorboardX's SummaryWriter leaves that to a thread; where that has ended, for
    a clock that jumped or a full disk, training would wait for it for ever.)"""

    def __init__(self, folder: Path, first_step: int):
        """What earlier files have from `first_step` on no longer counts."""
        folder.mkdir(parents=True, exist_ok=True)
        self._events = EventsWriter(str(folder / "events"), filename_suffix=f".{secrets.token_hex(4)}")
        self._flushed = time.monotonic()
        restart = _protos.SessionLog(status=_protos.SessionLog.START)
        self._events.write_event(_protos.Event(wall_time=time.time(), step=first_step, session_log=restart))

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._events.write_event(_protos.Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        self._events.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._events.close()


def _start_wandb(workdir: Path, project: str, run: Any) -> Any:
    """The run of this workdir on Weights & Biases, gone on with where it was begun."""
    try:
        import wandb
    except ImportError:
        raise ConfigError(
            "dashboards.wandb_project needs Weights & Biases: pip install wandb, or leave the key out"
        ) from None
    name_file = workdir / "wandb-run"
    if not name_file.is_file():
        name_file.write_text(secrets.token_hex(8))
    return wandb.init(
        project=project, dir=workdir, id=name_file.read_text(), resume="allow", config=to_json(run), save_code=False
    )
