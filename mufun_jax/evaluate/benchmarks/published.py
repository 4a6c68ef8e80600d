"""The scores that were published for MuCUE: five models on 27 sets, carried in the package with their source."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mufun_jax.errors import UserError, nearest


@dataclass(frozen=True)
class PublishedSet:
    """A set of MuCUE. `accuracy` is a fraction for each model; the set that is listed only has none.

    `averaged` is false for that one, `gs_key`.
    """

    name: str
    group: str
    questions: int
    audio: str
    source: str
    accuracy: Mapping[str, float]
    averaged: bool


@dataclass(frozen=True)
class Published:
    """The whole table. Names of sets have underscores, as the data set's splits have."""

    source: str
    sets: tuple[PublishedSet, ...]
    models: tuple[str, ...]

    @property
    def averaged(self) -> tuple[PublishedSet, ...]:
        return tuple(each for each in self.sets if each.averaged)

    @property
    def groups(self) -> dict[str, str]:
        """The group of each set."""
        return {each.name: each.group for each in self.sets}


@cache
def published() -> Published:
    """The table of the package's `published.json`."""
    table = json.loads((files("mufun_jax.evaluate.benchmarks") / "published.json").read_text(encoding="utf-8"))
    listed = table["also_listed_not_averaged"]
    sets = [_set(listed | {"accuracy": {}}, averaged=False), *(_set(row, averaged=True) for row in table["sets"])]
    assert table["unit"] == "accuracy, percent"
    return Published(table["source"], tuple(sets), tuple(sets[1].accuracy))


def published_average(model: str) -> float:
    """The plain mean over the 26 averaged sets, a fraction. Raises UserError for a model that is not listed."""
    _check(model)
    return _mean([each.accuracy[model] for each in published().averaged])


def published_group_averages(model: str) -> dict[str, float]:
    """The plain mean over each group's averaged sets. Raises UserError for a model that is not listed."""
    _check(model)
    groups: dict[str, list[float]] = {}
    for each in published().averaged:
        groups.setdefault(each.group, []).append(each.accuracy[model])
    return {group: _mean(values) for group, values in groups.items()}


def set_name(name: str) -> str:
    """`mmau_music` of `mmau-music`: the leaderboard writes hyphens, the data set's splits underscores."""
    return name.replace("-", "_")


def _set(row: Mapping[str, object], *, averaged: bool) -> PublishedSet:
    accuracy, questions = row["accuracy"], row["questions"]
    assert isinstance(accuracy, dict) and isinstance(questions, int)
    fractions = {model: value / 100 for model, value in accuracy.items()}
    texts = {name: str(row[name]) for name in ("group", "audio", "source")}
    return PublishedSet(
        name=set_name(str(row["name"])), questions=questions, accuracy=fractions, averaged=averaged, **texts
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _check(model: str) -> None:
    models = list(published().models)
    if model not in models:
        raise UserError(f"no published scores of {model!r}{nearest(model, models)}; there are: {', '.join(models)}")
