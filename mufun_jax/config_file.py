"""Config files, and configurations as plain values: read, checked, compared.

A config file is Python with a function `get_config()` that returns an `ml_collections.ConfigDict`; `load_run_config`
reads it, applies `--set a.b=v`, and answers a misspelt key or a value out of range with one line that names it.
"""

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import ml_collections
from pydantic import TypeAdapter, ValidationError

from mufun_jax.config import RunConfig
from mufun_jax.errors import ConfigError, nearest

Config = TypeVar("Config")


def load_run_config(path: str | Path, settings: Sequence[str] = ()) -> RunConfig:
    """Reads a config file and applies `--set` settings, each `a.b=v` (v as Python writes it, or a plain word).

    Raises:
        ConfigError: no such file, no `get_config` in it, an unknown key, or a value out of range.
    """
    config = _execute_config_file(Path(path)).to_dict()
    for setting in settings:
        _apply_setting(config, setting)
    return validate(RunConfig, config, str(path))


def validate(kind: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Builds a configuration dataclass from plain values.

    Raises:
        ConfigError: with `where`, the key, what is wrong with it, and for a misspelt key the nearest one.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or kind.__name__
        if first["type"] == "unexpected_keyword_argument":
            fields = _field_names(kind, first["loc"][:-1])
            message = f"unknown key {key!r}{nearest(str(first['loc'][-1]), fields)}; known: {', '.join(fields)}"
        elif first["type"] == "missing":
            message = f"the key {key!r} is missing"
        else:
            message = f"{key}: {first['msg'].removeprefix('Value error, ')}"
            if not isinstance(first["input"], dict):
                message += f" (got {first['input']!r})"
        raise ConfigError(f"{where}: {message}") from None


def to_json(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values, as checkpoints store it."""
    return TypeAdapter(type(config)).dump_python(config, mode="json")


def difference(one: Any, other: Any) -> str | None:
    """The first key in which two configurations differ, as `a.b: 1 is not 2`, or None."""
    flat_one, flat_other = _flatten(to_json(one)), _flatten(to_json(other))
    for key in [*flat_one, *(key for key in flat_other if key not in flat_one)]:
        if flat_one.get(key) != flat_other.get(key):
            return f"{key}: {flat_one.get(key)} is not {flat_other.get(key)}"
    return None


def _execute_config_file(path: Path) -> ml_collections.ConfigDict:
    if not path.is_file():
        siblings = [str(other) for other in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such config file{nearest(str(path), siblings)}")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path}: has no function get_config()")
    return module.get_config()


def _apply_setting(config: dict[str, Any], setting: str) -> None:
    """Applies one `a.b=v` in place. Only keys that are there or could be; the value is a Python literal or a word."""
    key, separator, text = setting.partition("=")
    if not separator:
        raise ConfigError(f"--set {setting}: write it as key=value, for instance seed=1")
    *path, last = key.split(".")
    node = config
    for depth, part in enumerate(path):
        if part not in node and part in _field_names(RunConfig, tuple(path[:depth])):
            node[part] = {}  # all its keys have defaults, or what lacks one is named later
        if not isinstance(node.get(part), dict):
            raise ConfigError(f"--set {key}: unknown key {part!r}{nearest(part, list(node))}")
        node = node[part]
    try:
        node[last] = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        node[last] = text


def _field_names(kind: Any, path: tuple[int | str, ...]) -> list[str]:
    """The fields of the dataclass that a validation error's path leads to, through dicts and tuples of them."""
    for part in path:
        if is_dataclass(kind):
            kind = get_type_hints(kind)[str(part)]
        elif get_origin(kind) in (dict, tuple):
            kind = get_args(kind)[1 if get_origin(kind) is dict else 0]
    return [field.name for field in fields(kind)] if is_dataclass(kind) else []


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat
