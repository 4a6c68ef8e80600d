"""What an arm with a seed has measured, on the disk: a run that starts again does not do it again."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mufun_jax.errors import CheckpointError
from mufun_jax.train.guard import write_durably
from mufun_jax.weights.json_object import read_json_object

_MEASURED = "measured.json"


class Finished:
    """The record of one arm and seed, `workdir/arms/ARM/seed_N/measured.json`. `setting` is what it was measured on."""

    def __init__(self, workdir: Path, arm: str, seed: int, setting: Mapping[str, Any]):
        self.folder = workdir / "arms" / re.sub(r"[^a-z0-9_]+", "_", arm.lower()) / f"seed_{seed}"
        self._setting = json.loads(json.dumps(setting))

    def read(self) -> dict[str, Any] | None:
        """What was measured; None if it is yet to be.

        Raises CheckpointError where it was measured on something else, with the first key that differs.
        """
        path = self.folder / _MEASURED
        if not path.is_file():
            return None
        record = read_json_object(path)
        setting, measured = record.get("setting"), record.get("measured")
        if not isinstance(setting, dict) or not isinstance(measured, dict):
            raise CheckpointError(f"{path}: no record of an experiment; delete it, and it is measured again")
        changed = _difference(setting, self._setting)
        if changed:
            raise CheckpointError(f"{path} was measured on something else ({changed}); choose another --workdir")
        return measured

    def write(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps what was measured, whole or not at all, and returns it as it will be read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"setting": self._setting, "measured": dict(measured)}, indent=1, allow_nan=False)
        write_durably(self.folder / _MEASURED, text + "\n")
        return json.loads(text)["measured"]


def _difference(one: Any, other: Any, key: str = "") -> str | None:
    """The first key in which two JSON values differ, as `a.b: 1 is not 2`."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            found = _difference(one.get(name), other.get(name), f"{key}.{name}".lstrip("."))
            if found:
                return found
        return None
    return None if one == other else f"{key}: {one!r} is not {other!r}"
