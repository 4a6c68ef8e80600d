"""Experiment `layer-attribution`: what a trained model takes from each tapped layer, and what every layer holds.

A layer is removed by giving the connector its mean over the benchmark's songs in the place of what it says of a song
(mean ablation): the rest stays at the scale the connector was trained on. Nothing is trained but the probes.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from mufun_jax.errors import UserError
from mufun_jax.evaluate.digests import audio_digest, model_digest
from mufun_jax.evaluate.run import answer_all, with_audio
from mufun_jax.evaluate.score import is_correct, majority_accuracy
from mufun_jax.evaluate.statistics import paired_difference
from mufun_jax.evaluate.tasks import Item, load_items
from mufun_jax.experiment.experiment import Defaults, Options, Tell, chosen_arms
from mufun_jax.experiment.finished import Finished
from mufun_jax.experiment.layer_probes import probe_layers, song_features, song_of
from mufun_jax.experiment.outcome import Cell, Line, Outcome, ResultFigure, ResultTable
from mufun_jax.generate.chat import MuFun
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.params import Params

_WHOLE = "all layers"
_QUICK_QUESTIONS = 12  # of a task


class LayerAttribution:
    """See the module."""

    name = "layer-attribution"
    question = "From which layers does the model hear what?"
    arms: Mapping[str, str] = {
        "removed": "each tapped layer in turn is taken from the connector",
        "alone": "all tapped layers but one are",
        "probes": "logistic regression on the frozen features of every layer, songs left out in turn",
    }
    trains = False
    seeds = 1
    defaults = Defaults()

    def run(self, workdir: Path, options: Options, tell: Tell) -> Outcome:
        """Raises UserError where there is no trained model or nothing to ask it, or scikit-learn is not installed."""
        chosen = chosen_arms(self, options)
        items, folder = _items(options), _model_folder(options)
        if "probes" in chosen and find_spec("sklearn") is None:
            raise UserError("probes need scikit-learn, which is not installed: pip install 'mufun_jax[experiment]'")
        assert options.benchmark is not None
        setting = {
            "model": model_digest(folder),
            "benchmark": audio_digest(options.benchmark),
            "tasks": list(items),
            "quick": options.quick,
        }
        finished = {arm: Finished(workdir, arm, options.seeds[0], setting) for arm in (_WHOLE, *chosen)}
        found = {arm: each.read() for arm, each in finished.items()}
        if any(measured is None for measured in found.values()):
            model = MuFun.from_pretrained(folder, "float32")
            everything = [item for of_task in items.values() for item in of_task]
            features = song_features(model, everything, tell)
            for arm, measured in found.items():
                if measured is None:
                    said = _measure(arm, model, items, features, options.seeds[0], tell)
                    found[arm] = finished[arm].write(said)
        measured = {arm: values for arm, values in found.items() if values is not None}
        return self._outcome(options, items, measured)

    def _outcome(self, options: Options, items: Mapping[str, Sequence[Item]], found: Mapping[str, Any]) -> Outcome:
        tables, figures = [], []
        for arm in ("removed", "alone"):
            if arm in found:
                tables += change_tables(arm, items, found[_WHOLE]["right"], found[arm]["right"])
                figures.append(_accuracy_figure(arm, items, found[_WHOLE]["right"], found[arm]["right"]))
        if "probes" in found:
            tables.append(_probe_table(items, found["probes"]["right"]))
            figures.append(_probe_figure(found["probes"]["right"]))
        return Outcome(
            experiment=self.name,
            question=self.question,
            answer=_answer(items, found),
            setting={
                "model": str(options.checkpoint),
                "benchmark": f"{options.benchmark}, {sum(map(len, items.values()))} questions",
            },
            tables=tuple(tables),
            figures=tuple(figures),
            measured=tuple({"arm": arm, **values} for arm, values in found.items()),
        )


def _items(options: Options) -> dict[str, list[Item]]:
    if options.benchmark is None:
        raise UserError(
            "nothing to ask the model: give --benchmark, for instance runs/demo/data/score_corpus/heldout.json"
        )
    items = load_items(options.benchmark, list(options.tasks) or None)
    return {task: of[:_QUICK_QUESTIONS] for task, of in items.items()} if options.quick else items


def _model_folder(options: Options) -> Path:
    if options.checkpoint is None:
        raise UserError(
            "layer-attribution looks at a trained model: give --checkpoint, for instance runs/demo/checkpoint"
        )
    return local_folder(options.checkpoint)


def _measure(
    arm: str,
    model: MuFun,
    items: Mapping[str, Sequence[Item]],
    features: Mapping[str, Float32[np.ndarray, "depths D"]],
    seed: int,
    tell: Tell,
) -> dict[str, Any]:
    """By what is left, which questions are answered right; of probes by task, what each depth has right."""
    if arm == "probes":
        return {"right": probe_layers(features, items, seed)}
    taps = model.config.encoder.taps
    if arm == _WHOLE:
        return {"right": {_WHOLE: right_answers(model, items, tell, arm)}}
    means = np.mean(list(features.values()), axis=0)
    right = {}
    for tap in taps:
        gone = (tap,) if arm == "removed" else tuple(other for other in taps if other != tap)
        without = MuFun(model.model, without_taps(model.params, taps, gone, means), model.tokenizer, model.mesh)
        right[str(tap)] = right_answers(without, items, tell, f"{arm}: layer {tap}")
    return {"right": right}


def without_taps(
    params: Params, taps: Sequence[int], gone: Iterable[int], means: Float32[np.ndarray, "depths D"]
) -> Params:
    """Parameters with which the connector takes the mean of some taps in their place: x W + b with x = mean there."""
    linear = params["connector"]["linear1"]
    kernel, bias = np.array(linear["kernel"]), np.array(linear["bias"])
    width = means.shape[1]
    assert kernel.shape[0] == len(taps) * width
    for tap in gone:
        first = list(taps).index(tap) * width
        bias += means[tap].astype(bias.dtype) @ kernel[first : first + width]
        kernel[first : first + width] = 0
    changed = {name: jax.device_put(to, linear[name].sharding) for name, to in (("kernel", kernel), ("bias", bias))}
    return params | {"connector": params["connector"] | {"linear1": linear | changed}}


def right_answers(model: MuFun, items: Mapping[str, Sequence[Item]], tell: Tell, said: str) -> dict[str, list[bool]]:
    """By task, which questions are answered right, asked with their songs."""
    everything = [item for of_task in items.values() for item in of_task]
    questions = [with_audio(item, item) for item in everything]
    replies = iter(answer_all(model, questions, lambda answered: tell(answered, len(questions), said)))
    return {task: [is_correct(next(replies), item.answer) for item in of_task] for task, of_task in items.items()}


def change_tables(
    arm: str,
    items: Mapping[str, Sequence[Item]],
    whole: Mapping[str, Mapping[str, Sequence[bool]]],
    right: Mapping[str, Mapping[str, Sequence[bool]]],
) -> list[ResultTable]:
    """Accuracy with all layers and with some taken away, and the differences with intervals clustered by song."""
    rows, changes = [], []
    for task, of_task in items.items():
        before = whole[_WHOLE][task]
        majority = majority_accuracy([item.answer for item in of_task])
        shares: list[Cell] = [_share(before), *(_share(of[task]) for of in right.values())]
        rows.append((task, len(of_task), *shares, majority))
        songs = [song_of(item) for item in of_task]
        for tap, of in right.items():
            after = [float(one) - float(other) for one, other in zip(of[task], before, strict=True)]
            change = paired_difference(after, songs)
            changes.append((task, f"layer {tap}", change.mean, *(change.interval or (None, None))))
    word = "without layer" if arm == "removed" else "layer"
    only = "" if arm == "removed" else " alone"
    columns = ("task", "n", _WHOLE, *(f"{word} {tap}{only}" for tap in right), "commonest answer")
    heads = ("task", arm, "difference", "from", "to")
    note = f"less that with {_WHOLE}; 95 % intervals over songs"
    return [
        ResultTable(f"Accuracy, layers {arm}", columns, tuple(rows)),
        ResultTable(f"Change of accuracy, layers {arm}", heads, tuple(changes), note),
    ]


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def _probe_share(found: Sequence[int] | None) -> float | None:
    return None if found is None else found[0] / found[1]


def _probe_table(
    items: Mapping[str, Sequence[Item]], right: Mapping[str, Sequence[Sequence[int] | None]]
) -> ResultTable:
    rows = []
    for task, depths in right.items():
        answers = list({song_of(item): item.answer for item in reversed(items[task])}.values())
        rows.append((task, len(answers), *map(_probe_share, depths), majority_accuracy(answers)))
    depths = len(next(iter(right.values())))
    columns = ("task", "songs", *(f"layer {depth}" for depth in range(depths)), "commonest answer")
    return ResultTable("Accuracy of linear probes", columns, tuple(rows), "on each song's mean; songs left out in turn")


def _accuracy_figure(
    arm: str, items: Mapping[str, Any], whole: Mapping[str, Any], right: Mapping[str, Any]
) -> ResultFigure:
    tasks = tuple(items)
    shown = {_WHOLE: whole[_WHOLE]} | {f"layer {tap} {arm}": of for tap, of in right.items()}
    lines = tuple(Line(name, tasks, tuple(_share(of[task]) for task in tasks)) for name, of in shown.items())
    return ResultFigure(f"Layers {arm}", "bars", "", "accuracy", lines)


def _probe_figure(right: Mapping[str, Sequence[Sequence[int] | None]]) -> ResultFigure:
    lines = tuple(
        Line(task, tuple(range(len(depths))), tuple(map(_probe_share, depths))) for task, depths in right.items()
    )
    return ResultFigure("What a linear probe reads from each layer", "lines", "layer", "accuracy", lines)


def _answer(items: Mapping[str, Sequence[Item]], found: Mapping[str, Any]) -> str:
    """The layer that each task misses most, where its interval says that it is missed, and the best probe's."""
    said = []
    if "removed" in found:
        _, changes = change_tables("removed", items, found[_WHOLE]["right"], found["removed"]["right"])
        for task in items:
            lost = [row for row in changes.rows if row[0] == task and isinstance(row[4], float) and row[4] < 0]
            if lost:
                most = min(lost, key=lambda row: float(row[2] or 0))
                said.append(f"{task} misses {most[1]} most ({most[2]:+.2f})")
        if not said:
            said.append("no task surely misses any one layer")
    if "probes" in found:
        for task, depths in found["probes"]["right"].items():
            shares = [_probe_share(depth) for depth in depths]
            known = [share for share in shares if share is not None]
            if known:
                said.append(f"{task} is best read from layer {shares.index(max(known))} ({max(known):.2f})")
    text = "; ".join(said) or "Only layers alone were looked at: see the table"
    return f"{text[0].upper()}{text[1:]}."
