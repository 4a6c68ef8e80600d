"""What a step's loss and gradient norm may be, and which batches a run has passed over."""

import json
import math
import os
import statistics
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mufun_jax.config import GuardConfig
from mufun_jax.errors import UserError

_FEWEST = 10  # norms before there is a median worth the name


class BadStepError(UserError):
    """A step whose loss or gradient cannot be right. `stage` and `step` say where it was, `reason` what it had."""

    def __init__(self, stage: str, step: int, reason: str, advice: str):
        super().__init__(f"stage {stage}, step {step}: {reason}{advice}")
        self.stage, self.step, self.reason = stage, step, reason


class Guard:
    """Checks the steps of a stage, in their order. It is given the lines of those that were taken before a stop, so it
    judges after it as it would have."""

    def __init__(self, config: GuardConfig, stage: str, before: Iterable[dict[str, Any]] = ()):
        self._config, self._stage = config, stage
        norms = (line["gradient_norm"] for line in before if line["stage"] == stage and "gradient_norm" in line)
        self._norms = deque(norms, maxlen=config.window)

    def check(self, step: int, metrics: dict[str, Any]) -> None:
        """Raises BadStepError for a loss or norm that is not finite, or a norm far over the median of those before."""
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(metrics[name]):
                self._refuse(step, f"{name} is {metrics[name]}")
        norm = metrics["gradient_norm"]
        if len(self._norms) >= _FEWEST:
            median = statistics.median(self._norms)
            if norm > self._config.norm_factor * median:
                self._refuse(
                    step,
                    f"gradient_norm is {norm:.4g}, {norm / median:.3g} times the median {median:.4g} of the "
                    f"{len(self._norms)} steps before",
                )
        self._norms.append(norm)

    def _refuse(self, step: int, reason: str) -> None:
        advice = "; lower the learning rate, look at the data, or pass over such batches: --set guard.policy=rollback"
        if self._config.policy == "rollback":
            advice = ""
        raise BadStepError(self._stage, step, reason, advice)


class Skipped:
    """The batches that a run passes over, and why: in `WORKDIR/skipped.json`, safe on the disk before it goes on."""

    def __init__(self, path: Path, most: int):
        self._path, self._most = path, most
        self._reasons: dict[str, dict[str, str]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}

    def of(self, stage: str) -> dict[int, str]:
        """Steps of a stage whose batches are passed over, with the reason."""
        return {int(step): reason for step, reason in self._reasons.get(stage, {}).items()}

    def add(self, bad: BadStepError, *, write: bool) -> None:
        """Raises UserError where that were one too many. All processes add; one writes."""
        count = sum(map(len, self._reasons.values()))
        if count >= self._most:
            raise UserError(
                f"{bad}; {count} batches were passed over already, guard.most_skipped: lower the learning rate, or "
                "look at the data"
            )
        self._reasons.setdefault(bad.stage, {})[str(bad.step)] = bad.reason
        if write:
            write_durably(self._path, json.dumps(self._reasons, indent=1) + "\n")


def write_durably(path: Path, text: str) -> None:
    """Replaces a file in one move; when this returns it is on the disk."""
    aside = path.with_name(path.name + ".partial")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
