"""The experiments that train, on models of a second each."""

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.run import TaskScore
from mufun_jax.experiment import trained_arms
from mufun_jax.experiment.comparison import Comparison, answer, mean_and_spread, score_tables
from mufun_jax.experiment.connector_warmup import ConnectorWarmup, diagnose, warmup_alone
from mufun_jax.experiment.curriculum_order import Curriculum, combined, without_warmup
from mufun_jax.experiment.experiment import Options
from mufun_jax.experiment.layer_ablation import LayerAblation, last_layer
from mufun_jax.experiment.trained_arms import ArmRun, budget, train_arms
from tests.train.tiny_run import KilledError, tiny_run


@pytest.fixture(scope="module")
def options(tiny_corpus, tmp_path_factory):
    entries = [entry | {"task": "height"} for entry in json.loads((tiny_corpus / "notes.json").read_text())[:4]]
    benchmark = tmp_path_factory.mktemp("benchmark") / "heldout.json"
    for entry in entries:
        shutil.copy(tiny_corpus / entry["audio"], benchmark.parent)
    benchmark.write_text(json.dumps(entries))
    return Options(tiny_run(tiny_corpus), benchmark=benchmark, quick=True)


@pytest.fixture
def trained(monkeypatch):
    """In the place of training and scoring, which the slow test below does: what was trained, in order."""
    steps = []

    def train(run, folder, callbacks):
        folder.mkdir(parents=True)
        with (folder / "metrics.jsonl").open("w") as file:
            number = 0
            for stage in run.curriculum:
                for step in range(1, run.stages[stage].steps + 1):
                    number += 1
                    line = {"stage": stage, "step": step, "global_step": number, "loss": 1 / number, "seconds": 0.5}
                    line |= {"learning_rate": 0.1, "gradient_norm": 1.0, "gradient_norm_connector": 1.0}
                    file.write(json.dumps(line) + "\n")
                    steps.append((len(run.model.encoder.taps), run.seed, stage, step))
                    callbacks.on_step(stage, step, run.stages[stage].steps, line)
        return folder / "checkpoint", run

    def evaluate(trained, items, progress):
        _, run = trained
        progress(1, 1)
        accuracy = 0.25 * len(run.model.encoder.taps) + 0.1 * run.seed
        return {task: TaskScore(len(of), accuracy, (0.0, 1.0), 0.5, 0.0, 0.0) for task, of in items.items()}

    monkeypatch.setattr(trained_arms, "train_curriculum", train)
    monkeypatch.setattr(trained_arms, "evaluate", evaluate)
    monkeypatch.setattr(trained_arms.MuFun, "from_pretrained", lambda checkpoint, dtype: checkpoint)
    return steps


def ignore(done, total, note):
    pass


def arm_run(arm, seed, accuracy, stopped=None):
    scores = {task: {"accuracy": value, "majority": 0.25} for task, value in accuracy.items()}
    return ArmRun(arm, seed, scores, ({"loss": 2.0, "global_step": 1},), 10, 1.0, stopped)


# --- arms -----------------------------------------------------------------------------------------------------------


def test_arms_differ_in_their_taps_only(options):
    last = last_layer(options.run)
    assert last.model.encoder.taps == (2,)
    assert replace(last, model=options.run.model) == options.run
    assert last.model.connector_width == options.run.model.connector_width
    with pytest.raises(UserError, match="taps the last layer only"):
        last_layer(last)
    with pytest.raises(UserError, match="begins both arms from nothing"):
        last_layer(replace(options.run, initial_model="somewhere"))


def test_combined_stages_have_the_positions_of_all(options):
    run = options.run
    one = combined(run)
    assert one.curriculum == ("warmup", "combined")
    stage = one.stages["combined"]
    # align: 6 steps of 2 x 192 positions, three of notes to one of songs; long: 3 steps of 2 x 128, all songs.
    align, long = 6 * 2 * 192, 3 * 2 * 128
    assert stage.positions == 192
    assert stage.steps == round((align + long) / (2 * 192)) == 8
    assert budget(one) == budget(run)
    assert stage.mixture == pytest.approx(
        {"notes": 0.75 * align / (align + long), "songs": (0.25 * align + long) / (align + long)}
    )
    assert stage.learning_rate == pytest.approx(0.01)
    with pytest.raises(UserError, match="nothing to combine"):
        combined(replace(run, curriculum=("warmup", "align")))
    by_size = replace(run.stages["long"], weigh_by="size")
    with pytest.raises(UserError, match=r"stages\.long\.weigh_by is size"):
        combined(replace(run, stages=run.stages | {"long": by_size}))


def test_without_warmup_its_positions_go_to_the_next_stage(options):
    run = without_warmup(options.run)
    assert run.curriculum == ("align", "long")
    assert run.stages["align"].steps == 6 + 3
    assert budget(run) == budget(options.run)
    with pytest.raises(UserError, match="no stage with template 'warmup'"):
        without_warmup(run)


def test_stages_in_epochs_have_no_budget(options):
    epochs = replace(options.run.stages["align"], steps=None, epochs=1)
    with pytest.raises(UserError, match=r"stages\.align is in epochs"):
        budget(replace(options.run, stages=options.run.stages | {"align": epochs}))


def test_the_warmup_alone_is_long_enough(options):
    run = warmup_alone(options.run, 20)
    assert run.curriculum == ("warmup",)
    assert run.stages["warmup"].steps == 20
    assert warmup_alone(options.run, 1).stages["warmup"].steps == 3
    with pytest.raises(UserError, match="no stage trains the connector alone"):
        warmup_alone(replace(options.run, curriculum=("align",)), 20)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_layers_are_ablated_with_every_seed(options, trained, tmp_path):
    options, notes = replace(options, seeds=(0, 1)), []
    outcome = LayerAblation().run(tmp_path, options, lambda *note: notes.append(note))
    order = [("tapped layers", 0), ("last layer", 0), ("tapped layers", 1), ("last layer", 1)]
    assert [(run["arm"], run["seed"]) for run in outcome.measured] == order
    accuracy, differences, training = outcome.tables
    assert accuracy.columns == ("task", "arm", "seed 0", "seed 1", "mean", "spread", "commonest answer")
    assert [row[:2] for row in accuracy.rows] == [("height", "tapped layers"), ("height", "last layer")]
    assert accuracy.rows[0][2:5] == pytest.approx((0.5, 0.6, 0.55))
    assert differences.rows[0][:3] == ("height", "last layer", pytest.approx(-0.25))
    low, high = differences.rows[0][3:]
    assert isinstance(low, float) and isinstance(high, float)
    assert low < -0.9 and high > 0.9, "two seeds that agree are no proof"
    assert outcome.answer == "last layer against tapped layers, over 2 seeds: not told apart at height."
    by_arm: dict[Any, Any] = {row[0]: row for row in training.rows}
    assert by_arm["tapped layers"][3] - by_arm["last layer"][3] == 16 * 16  # one layer's width into the connector
    assert by_arm["tapped layers"][1:3] == by_arm["last layer"][1:3] == (6, 2 * (2 * 192 + 2 * 192 + 2 * 128))
    assert [done for done, *_ in notes] == sorted(done for done, *_ in notes)
    assert notes[-1][:2] == (400, 400)
    assert len(trained) == 4 * 6
    assert LayerAblation().run(tmp_path, options, ignore) == outcome
    assert len(trained) == 4 * 6, "nothing is trained again"


def test_a_killed_experiment_goes_on(options, trained, tmp_path):
    def kill(done, total, note):
        if done > 130:
            raise KilledError

    run = trained_arms.quickened(options.run)
    runs = {"one": run, "two": last_layer(run)}
    with pytest.raises(KilledError):
        train_arms(tmp_path, runs, options, kill)
    assert [path.parent.parent.name for path in tmp_path.rglob("measured.json")] == ["one"]
    shutil.rmtree(tmp_path / "arms" / "two")  # training goes on in it, which others test
    trained.clear()
    assert [run.arm for run in train_arms(tmp_path, runs, options, ignore)] == ["one", "two"]
    assert {taps for taps, *_ in trained} == {1}, "the second arm only"
    with pytest.raises(UserError, match=r"measured on something else \(run\.model\.encoder\.layers: 2 is not 3\)"):
        other = replace(run.model, encoder=replace(run.model.encoder, layers=3, taps=(0, 3)))
        train_arms(tmp_path, {"one": replace(run, model=other)}, options, ignore)


@pytest.mark.slow
def test_orders_of_stages_are_compared(options, tmp_path):
    outcome = Curriculum().run(tmp_path, options, ignore)
    assert [run["arm"] for run in outcome.measured] == ["sequential", "combined", "no warmup"]
    stages = {run["arm"]: [step["stage"] for step in run["steps"]] for run in outcome.measured}
    assert list(dict.fromkeys(stages["combined"])) == ["warmup", "combined"]
    assert list(dict.fromkeys(stages["no warmup"])) == ["align", "long"]
    assert outcome.answer.startswith("One seed: the difference may be chance.")
    assert outcome.holds


def test_a_connector_that_learns_alone(options, tmp_path):
    outcome = ConnectorWarmup().run(tmp_path, options, ignore)
    assert outcome.holds, outcome.answer
    assert outcome.answer.startswith("Yes: it falls from ")
    assert len(outcome.measured[0]["steps"]) == 12


@pytest.mark.parametrize(
    ("rate", "why"),
    [(1e-9, "does not fall by more than its own noise"), (1e38, r"stage warmup, step \d+: .* try a third of it")],
)
def test_a_connector_that_does_not_learn_says_why(options, tmp_path, rate, why):
    stage = replace(options.run.stages["warmup"], learning_rate=rate)
    run = replace(options.run, stages=options.run.stages | {"warmup": stage})
    outcome = ConnectorWarmup().run(tmp_path, replace(options, run=run), ignore)
    assert not outcome.holds
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(outcome.answer)


def test_a_benchmark_is_asked_for(options, tmp_path):
    with pytest.raises(UserError, match="nothing to ask models: give --benchmark"):
        LayerAblation().run(tmp_path, replace(options, benchmark=None), ignore)


# --- what is said ---------------------------------------------------------------------------------------------------

FALLS = [6.0 - 0.04 * step + 0.02 * (-1) ** step for step in range(60)]
ONES = [1.0] * 60


@pytest.mark.parametrize(
    ("losses", "norms", "wrong", "said"),
    [
        (FALLS, ONES, False, "it falls from 5.900 to 3.740 nats a token in 60 steps"),
        (FALLS, [0.0] * 60, True, "no gradient reaches the connector"),
        (FALLS[::-1], ONES, True, "the loss rises, from 3.740 to 5.900"),
        ([6.0 + 0.02 * (-1) ** step for step in range(60)], ONES, True, "does not fall by more than its own noise"),
        ([*FALLS[:40], *FALLS[15:40][::-1]], ONES, True, "turns up again after step 43"),
        ([1.0], [1.0], True, "1 steps make no curve"),
    ],
)
def test_a_curve_is_diagnosed(losses, norms, wrong, said):
    found = diagnose(losses, norms)
    assert found[0] is wrong
    assert said in found[1]


def test_means_spreads_and_paired_differences():
    assert mean_and_spread([0.5, 0.7, None]) == pytest.approx((0.6, 0.1414213562))
    assert mean_and_spread([0.5]) == (0.5, None)
    assert mean_and_spread([None]) == (None, None)
    both = [("one", 0, 0.5), ("two", 0, 0.7), ("one", 1, 0.4), ("two", 1, 0.5), ("one", 2, 0.6), ("two", 2, 0.9)]
    runs = [arm_run(arm, seed, {"pitch": value}) for arm, seed, value in both]
    comparison = Comparison(("one", "two"), tuple(runs))
    _, table = score_tables(comparison)
    # 0.2, 0.1, 0.3: mean 0.2, standard error 0.1 / sqrt(3), Student's t of 2 degrees of freedom 4.30265.
    assert table.rows[0][2:] == pytest.approx((0.2, 0.2 - 0.248414, 0.2 + 0.248414), abs=1e-6)
    assert answer(comparison) == "two against one, over 3 seeds: not told apart at pitch."


def test_sure_differences_are_named():
    better = {0: 0.30, 1: 0.31, 2: 0.29}
    runs = [arm_run("one", seed, {"pitch": 0.1, "key": 0.5}) for seed in better]
    runs += [arm_run("two", seed, {"pitch": value, "key": 0.7 - value}) for seed, value in better.items()]
    assert (
        answer(Comparison(("one", "two"), tuple(runs)))
        == "two against one, over 3 seeds: better at pitch; worse at key."
    )


def test_an_arm_that_was_stopped_has_no_accuracy():
    runs = (arm_run("one", 0, {"pitch": 0.5}), arm_run("two", 0, {}, "loss is nan"))
    accuracy, *others = score_tables(Comparison(("one", "two"), runs))
    assert accuracy.rows == (("pitch", "one", 0.5, 0.5, None, 0.25), ("pitch", "two", None, None, None, 0.25))
    assert others == []
