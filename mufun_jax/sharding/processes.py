"""The processes of a run, joined by `jax.distributed`: one a host on a pod, or several on one machine.

All run the same program. The first one, process 0, writes and prints; what is collective, all must call.
"""

import atexit
import hashlib
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mufun_jax.errors import ConfigError, UserError, exit_code
from mufun_jax.sharding.roll_call import call_roll

# What clouds' firewalls leave open between the hosts of a TPU pod. Since jax 0.8.1 its own default is 8482, which they
# block: all hosts would wait for one another for ever.
_TPU_PORT = "8476"
_OWN_PORTS = ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri")  # there jax derives a port from the job's number
_JOIN_SECONDS = 300
# After which a process that sends no heartbeat is taken for dead, and JAX ends all. Heartbeats come every half of that:
# what is left after the last one is more than the watch needs to name the process in our words.
_SILENT_SECONDS = 50
_LONGEST_FAULT = 400  # bytes
_LOST = ("Gloo", "closed by peer", "Connection reset", "heartbeat", "coordination service", "UNAVAILABLE")


@dataclass(frozen=True)
class Processes:
    """How this process finds the others; as it stands, there are none.

    Raises ConfigError for what does not go together.
    """

    coordinator: str | None = None  # HOST:PORT where process 0 listens
    count: int | None = None
    number: int | None = None
    distributed: bool = False  # found by jax: TPU pods, SLURM, Open MPI, Kubernetes

    def __post_init__(self) -> None:
        given = {"--coordinator": self.coordinator, "--processes": self.count, "--process": self.number}
        present = [name for name, value in given.items() if value is not None]
        if self.distributed and present:
            raise ConfigError(f"--distributed finds the processes by itself: leave out {', '.join(present)}")
        if present and len(present) < len(given):
            missing = [name for name in given if name not in present]
            raise ConfigError(f"{', '.join(present)} without {', '.join(missing)}: several processes need all three")
        if self.coordinator is None or self.count is None or self.number is None:
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"--coordinator {self.coordinator}: write HOST:PORT, for instance 10.0.0.2:{_TPU_PORT}")
        if self.count < 1:
            raise ConfigError(f"--processes {self.count}: at least 1")
        if not 0 <= self.number < self.count:
            raise ConfigError(
                f"--process {self.number} of --processes {self.count}: they are numbered 0 to {self.count - 1}"
            )


@contextmanager
def joined(processes: Processes) -> Iterator[None]:
    """Joins the other processes, before anything touches a device.

    A process that fails inside leaves at once: jax's own way out waits for the others, which wait for this one.

    Raises:
        UserError: the coordinator's port is taken, or no pod was found.
        LostProcessError: the coordinator does not answer, or a process does not come.
    """
    if processes.distributed or processes.coordinator is not None:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        _join(processes)
    try:
        yield
    except BaseException as error:
        if jax.distributed.is_initialized():
            atexit.register(_leave, exit_code(error))
        raise


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def check_same(text: str, what: str) -> None:
    """Collective. Raises ConfigError, on all processes, where they were given different texts."""
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    others = multihost_utils.process_allgather(digest)
    different = [number for number, other in enumerate(others) if (other != others[0]).any()]
    if different:
        numbers = ", ".join(map(str, different))
        raise ConfigError(f"process {numbers} of {len(others)} has another {what} than process 0: give all the same")


def wait_for_all(what: str) -> None:
    """Collective. Returns when all processes have come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def first_fault(fault: str | None) -> str | None:
    """Collective. What this process found, or that another process found something; None where none of them did."""
    if jax.process_count() == 1:
        return fault
    text = np.zeros(_LONGEST_FAULT, np.uint8)
    said = np.frombuffer((fault or "").encode()[:_LONGEST_FAULT], np.uint8)
    text[: len(said)] = said
    found = (bytes(np.asarray(row).tolist()).rstrip(b"\0") for row in multihost_utils.process_allgather(text))
    return next((one.decode(errors="replace") for one in found if one), None)


def said_by_first(yes: bool) -> bool:
    """Collective. What process 0 was given."""
    return yes if jax.process_count() == 1 else bool(multihost_utils.broadcast_one_to_all(np.array(yes)))


def check_shared(folder: Path) -> None:
    """Collective. Raises ConfigError, on all processes, where a folder that is there is not the same one for all."""
    if jax.process_count() == 1:
        return
    drawn = np.frombuffer(secrets.token_bytes(8), np.uint8)
    name = bytes(np.asarray(multihost_utils.broadcast_one_to_all(drawn)).tolist()).hex()
    mark = folder / f".process-0-{name}"
    if is_first():
        mark.touch()
    multihost_utils.sync_global_devices("mark is written")
    seen = multihost_utils.process_allgather(np.array(mark.exists()))
    if is_first():
        mark.unlink()
    if not seen.all():
        blind = ", ".join(str(number) for number in np.flatnonzero(~seen))
        raise ConfigError(
            f"{folder}: process {blind} of {len(seen)} does not see what process 0 writes there: "
            "it must be on a disk that all hosts share"
        )


def is_lost_connection(error: Exception) -> bool:
    """Whether a collective failed because another process is gone. JAX has no kind of its own for that, only words."""
    return jax.process_count() > 1 and any(word in str(error) for word in _LOST)


def _join(processes: Processes) -> None:
    try:
        if processes.coordinator is None:
            if not any(name in os.environ for name in _OWN_PORTS):
                os.environ.setdefault("JAX_COORDINATOR_PORT", _TPU_PORT)
            print("looking for the other processes of this pod", file=sys.stderr, flush=True)
            place = _detect()
        else:
            place = processes.coordinator, processes.count, processes.number, None
        coordinator, count, number, devices = place
        if coordinator is None or count is None or number is None:
            raise ValueError("neither a TPU pod, SLURM, Open MPI nor Kubernetes is here")
        who = f"process {number} of {count}"
        waiting = f"{who}: waiting for the others at {coordinator}, {_JOIN_SECONDS} s at most"
        print(waiting, file=sys.stderr, flush=True)
        call_roll(coordinator, number, count, float(_JOIN_SECONDS))
        jax.distributed.initialize(
            coordinator,
            count,
            number,
            devices,
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=_SILENT_SECONDS,
            cluster_detection_method="deactivate",
        )
    except (ValueError, RuntimeError) as error:  # jax says no more than that with these
        if isinstance(error, UserError):
            raise
        mend = (
            "give --coordinator HOST:PORT --processes N --process I"
            if processes.coordinator is None
            else f"is another program at the port of {processes.coordinator}? Take another port"
        )
        raise UserError(f"the processes cannot be joined ({str(error).splitlines()[0]}); {mend}") from None


def _detect() -> tuple[str | None, int | None, int | None, Any]:
    """Coordinator, number of processes, this one's number and its devices, as JAX finds them. It has no public way to
    tell without joining at once."""
    from jax._src.clusters import ClusterEnv

    return ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, _JOIN_SECONDS)


def _leave(code: int) -> None:
    """Runs at exit before jax's own handler, which was registered earlier and never comes to its turn."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
