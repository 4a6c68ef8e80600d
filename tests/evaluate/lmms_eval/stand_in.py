"""The part of lmms-eval's interface that the adapter meets, as version 0.7.3 has it (classes and requests).

lmms-eval itself brings hundreds of packages. What stands here is written from its `api/model.py`, `api/instance.py`,
`models/registry_v2.py` and the scoring of multiple choice in `api/task.py`.
"""

import abc
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any


class Lmms(abc.ABC):
    is_simple: bool = True

    def __init__(self):
        self._rank = 0
        self._world_size = 1
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any]):
        """`a=1,b=x` as arguments, with what the command line adds, but for what is None there."""
        given = dict(part.split("=") for part in arg_string.split(",")) if arg_string else {}
        return cls(**given, **{name: value for name, value in additional_config.items() if value is not None})


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple[str, ...] = ()


@dataclass
class Instance:
    """A request."""

    request_type: str
    arguments: tuple[Any, ...]

    @property
    def args(self) -> tuple[Any, ...]:
        return self.arguments


def chosen_option(results: list[tuple[float, bool]]) -> int:
    """The option that a task of multiple choice takes: the one with the least of what `loglikelihood` returned."""
    losses = [loss for loss, _ in results]
    return losses.index(min(losses))


def modules() -> dict[str, ModuleType]:
    """For sys.modules."""
    names = ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model", "lmms_eval.models", "lmms_eval.models.registry_v2")
    made: dict[str, Any] = {name: ModuleType(name) for name in names}
    made["lmms_eval.api.model"].lmms = Lmms
    made["lmms_eval.models.registry_v2"].ModelManifest = ModelManifest
    assert not set(made) & set(sys.modules), "lmms-eval itself is here"
    return made
