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
from mufun_jax.evaluate.tasks import Item
from mufun_jax.experiment.comparison import mean_and_spread
from mufun_jax.experiment.experiment import Defaults, Options, Tell, all_items, asked_items, chosen_arms
from mufun_jax.experiment.finished import Finished
from mufun_jax.experiment.layer_probes import probe_layers, song_features, song_of
from mufun_jax.experiment.outcome import Cell, Line, Outcome, ResultFigure, ResultTable
from mufun_jax.generate.chat import MuFun
from mufun_jax.weights.hub import local_folder
from mufun_jax.weights.model_folder import open_model_folder
from mufun_jax.weights.params import Params

_WHOLE = "all layers"


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
        asked, folders = asked_items(options), _model_folders(options)
        if "probes" in chosen and find_spec("sklearn") is None:
            raise UserError("probes need scikit-learn, which is not installed: pip install 'mufun_jax[experiment]'")
        found = [
            _look(workdir, number, folder, (_WHOLE, *chosen), options, asked, _beside(tell, number, len(folders)))
            for number, folder in enumerate(folders)
        ]
        return self._outcome(options, asked, found)

    def _outcome(
        self, options: Options, items: Mapping[str, Sequence[Item]], found: Sequence[Mapping[str, Any]]
    ) -> Outcome:
        right = {arm: [of[arm]["right"] for of in found] for arm in found[0]}
        tables, figures = [], []
        for arm in ("removed", "alone"):
            if arm in right:
                tables += change_tables(arm, items, right[_WHOLE], right[arm])
                figures.append(_accuracy_figure(arm, items, right[_WHOLE], right[arm]))
        if "probes" in right:
            tables.append(_probe_table(all_items(options), right["probes"]))
            figures.append(_probe_figure(right["probes"]))
        return Outcome(
            experiment=self.name,
            question=self.question,
            answer=_answer(items, right),
            setting={
                "models" if len(found) > 1 else "model": ", ".join(options.checkpoints),
                "benchmark": f"{options.benchmark}, {sum(map(len, items.values()))} questions",
            },
            tables=tuple(tables),
            figures=tuple(figures),
            measured=tuple({"model": model, "arm": arm, **of[arm]} for model, of in enumerate(found) for arm in of),
        )


def _model_folders(options: Options) -> list[Path]:
    if not options.checkpoints:
        raise UserError(
            "layer-attribution looks at a trained model: give --checkpoint, for instance runs/demo/checkpoint"
        )
    folders = [local_folder(checkpoint) for checkpoint in options.checkpoints]
    taps = [open_model_folder(folder).config.model.encoder.taps for folder in folders]
    for checkpoint, tapped in zip(options.checkpoints, taps, strict=True):
        if tapped != taps[0]:
            raise UserError(
                f"{checkpoint} taps layers {tapped}, {options.checkpoints[0]} {taps[0]}: look at them apart"
            )
    return folders


def _beside(tell: Tell, number: int, models: int) -> Tell:
    """Tells of one model as a part of all."""
    return lambda done, total, note: tell(number * total + done, models * total, f"model {number + 1}, {note}")


def _look(
    workdir: Path,
    number: int,
    folder: Path,
    arms: Sequence[str],
    options: Options,
    asked: Mapping[str, Sequence[Item]],
    tell: Tell,
) -> dict[str, Any]:
    """By arm, what is measured of one model, or was before."""
    assert options.benchmark is not None
    setting = {
        "model": model_digest(folder),
        "benchmark": audio_digest(options.benchmark),
        "asked": {task: len(of_task) for task, of_task in asked.items()},
    }
    finished = {arm: Finished(workdir, arm, number, setting) for arm in arms}
    found = {arm: each.read() for arm, each in finished.items()}
    if any(measured is None for measured in found.values()):
        model = MuFun.from_pretrained(folder, "float32")
        items = all_items(options)
        features = song_features(model, [item for of_task in items.values() for item in of_task], tell)
        for arm, measured in found.items():
            if measured is None:
                of_arm = items if arm == "probes" else asked
                said = _measure(arm, model, of_arm, features, options.seeds[0] + number, tell)
                found[arm] = finished[arm].write(said)
    return {arm: measured for arm, measured in found.items() if measured is not None}


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


Right = Mapping[str, Mapping[str, Sequence[bool]]]  # by what is left of the layers and task, of each question


def change_tables(
    arm: str, items: Mapping[str, Sequence[Item]], whole: Sequence[Right], right: Sequence[Right]
) -> list[ResultTable]:
    """Accuracy with all layers and with some taken away, and the differences with intervals clustered by song.

    `whole` and `right` are of each model: accuracies are means over models, and so are the differences of a question.
    """
    rows, changes = [], []
    for task, of_task in items.items():
        majority = majority_accuracy([item.answer for item in of_task])
        shares: list[Cell] = [_share(whole, _WHOLE, task), *(_share(right, tap, task) for tap in right[0])]
        rows.append((task, len(of_task), *shares, majority))
        songs = [song_of(item) for item in of_task]
        for tap in right[0]:
            after = np.array([of[tap][task] for of in right], np.float64)
            by_model = after - np.array([of[_WHOLE][task] for of in whole], np.float64)
            change = paired_difference(by_model.mean(axis=0).tolist(), songs)
            spread = mean_and_spread(by_model.mean(axis=1).tolist())[1]
            changes.append((task, f"layer {tap}", change.mean, *(change.interval or (None, None)), spread))
    word = "without layer" if arm == "removed" else "layer"
    only = "" if arm == "removed" else " alone"
    columns = ("task", "n", _WHOLE, *(f"{word} {tap}{only}" for tap in right[0]), "commonest answer")
    heads = ("task", arm, "difference", "from", "to", "spread")
    models = f"means over {len(whole)} models; " if len(whole) > 1 else ""
    note = f"{models}less that with {_WHOLE}; 95 % intervals over songs; spread is the standard deviation over models"
    return [
        ResultTable(f"Accuracy, layers {arm}", columns, tuple(rows)),
        ResultTable(f"Change of accuracy, layers {arm}", heads, tuple(changes), note),
    ]


def _share(right: Sequence[Right], left: str, task: str) -> float:
    return float(np.mean([of[left][task] for of in right]))


Probed = Mapping[str, Sequence[Sequence[int] | None]]  # by task, of each depth: how many are right, of how many


def _probe_shares(found: Sequence[Probed], task: str) -> list[float | None]:
    """Of each depth, over all models."""
    depths = [[counts for counts in of_depth if counts] for of_depth in zip(*(of[task] for of in found), strict=True)]
    return [sum(right for right, _ in of) / sum(count for _, count in of) if of else None for of in depths]


def _probe_table(items: Mapping[str, Sequence[Item]], found: Sequence[Probed]) -> ResultTable:
    rows = []
    for task in found[0]:
        answers = list({song_of(item): item.answer for item in reversed(items[task])}.values())
        rows.append((task, len(answers), *_probe_shares(found, task), majority_accuracy(answers)))
    depths = len(next(iter(found[0].values())))
    columns = ("task", "songs", *(f"layer {depth}" for depth in range(depths)), "commonest answer")
    return ResultTable("Accuracy of linear probes", columns, tuple(rows), "on each song's mean; songs left out in turn")


def _accuracy_figure(
    arm: str, items: Mapping[str, Any], whole: Sequence[Right], right: Sequence[Right]
) -> ResultFigure:
    tasks = tuple(items)
    lines = [Line(_WHOLE, tasks, tuple(_share(whole, _WHOLE, task) for task in tasks))]
    for tap in right[0]:
        lines.append(Line(f"layer {tap} {arm}", tasks, tuple(_share(right, tap, task) for task in tasks)))
    return ResultFigure(f"Layers {arm}", "bars", "", "accuracy", tuple(lines))


def _probe_figure(found: Sequence[Probed]) -> ResultFigure:
    shares = {task: tuple(_probe_shares(found, task)) for task in found[0]}
    lines = tuple(Line(task, tuple(range(len(depths))), depths) for task, depths in shares.items())
    return ResultFigure("What a linear probe reads from each layer", "lines", "layer", "accuracy", lines)


def _answer(items: Mapping[str, Sequence[Item]], right: Mapping[str, Sequence[Any]]) -> str:
    """The layer that each task misses most, where its interval says that it is missed, and the best probe's."""
    said = []
    if "removed" in right:
        _, changes = change_tables("removed", items, right[_WHOLE], right["removed"])
        for task in items:
            lost = [row for row in changes.rows if row[0] == task and isinstance(row[4], float) and row[4] < 0]
            if lost:
                most = min(lost, key=lambda row: float(row[2] or 0))
                said.append(f"{task} misses {most[1]} most ({most[2]:+.2f})")
        if not said:
            said.append("no task surely misses any one layer")
    if "probes" in right:
        for task in right["probes"][0]:
            shares = _probe_shares(right["probes"], task)
            known = [share for share in shares if share is not None]
            if known:
                said.append(f"{task} is best read from layer {shares.index(max(known))} ({max(known):.2f})")
    text = "; ".join(said) or "Only layers alone were looked at: see the table"
    return f"{text[0].upper()}{text[1:]}."
