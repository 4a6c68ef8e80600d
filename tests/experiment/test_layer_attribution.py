import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import soundfile

from mufun_jax.config import SAMPLE_RATE
from mufun_jax.errors import UserError
from mufun_jax.evaluate.tasks import load_items
from mufun_jax.experiment import layer_attribution
from mufun_jax.experiment.experiment import Options
from mufun_jax.experiment.layer_attribution import LayerAttribution, without_taps
from mufun_jax.experiment.layer_probes import probe_accuracy, probe_layers, song_features
from mufun_jax.generate.chat import MuFun
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.text.tokenizer import load_tokenizer
from mufun_jax.weights.model_folder import save_model
from tests.tiny import SMALLEST, random_params, tiny_encoder
from tests.train.tiny_run import tiny_run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of random weights with two taps."""
    config = replace(SMALLEST, encoder=tiny_encoder(layers=1, taps=(0, 1)))
    folder = tmp_path_factory.mktemp("two-taps") / "checkpoint"
    save_model(folder, config, random_params(config), load_tokenizer("nano"))
    return folder


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Twelve songs, loud noise or a quiet tone, with the question which it is; and one question on two songs only."""
    folder, entries = tmp_path_factory.mktemp("benchmark"), []
    rng = np.random.default_rng(0)
    for number in range(12):
        time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
        sound = rng.standard_normal(SAMPLE_RATE) if number % 2 else np.sin(2 * np.pi * (300 + 5 * number) * time)
        soundfile.write(folder / f"{number}.wav", 0.1 * sound, SAMPLE_RATE)
        for task in ("kind", "rare") if number < 2 else ("kind",):
            said = [
                {"from": "human", "value": "<audio>\nNoise?"},
                {"from": "gpt", "value": ["no", "yes"][number % 2]},
            ]
            entry = {"id": f"{task}{number}", "audio": f"{number}.wav", "conversations": said, "task": task}
            entries.append(entry)
    (folder / "heldout.json").write_text(json.dumps(entries))
    return folder / "heldout.json"


@pytest.fixture(scope="module")
def model(checkpoint):
    return MuFun.from_pretrained(checkpoint, "float32")


@pytest.fixture
def options(tiny_corpus, checkpoint, benchmark):
    return Options(tiny_run(tiny_corpus), checkpoints=(str(checkpoint),), benchmark=benchmark)


def ignore(done, total, note):
    pass


def tokens(model, params, samples):
    return np.asarray(
        model.model.apply({"params": params}, jax.numpy.asarray(samples[None]), method=MuFunModel.encode_audio)
    )[0]


def connected(model, features):
    """The connector's output, from its formula."""
    linear1, linear2 = model.params["connector"]["linear1"], model.params["connector"]["linear2"]
    hidden = jax.nn.gelu(features @ linear1["kernel"] + linear1["bias"], approximate=False)
    return np.asarray(hidden @ linear2["kernel"] + linear2["bias"])


@pytest.mark.parametrize("gone", [(0,), (1,), (0, 1), ()])
def test_a_removed_layer_is_its_mean(model, gone):
    rng = np.random.default_rng(1)
    samples = 0.1 * rng.standard_normal((2, SAMPLE_RATE)).astype(np.float32)
    means = rng.standard_normal((2, 24)).astype(np.float32)
    variables = {"params": model.params}
    features = np.array(
        model.model.apply(variables, jax.numpy.asarray(samples[None]), connected=False, method=MuFunModel.encode_audio)
    )[0]
    assert features.shape == (20, 2 * 24)
    for tap in gone:
        features[:, 24 * tap : 24 * (tap + 1)] = means[tap]
    changed = without_taps(model.params, (0, 1), gone, means)
    np.testing.assert_allclose(tokens(model, changed, samples), connected(model, features), rtol=2e-4, atol=2e-5)


def test_features_of_a_song_are_means_of_every_depth(model, benchmark):
    items = load_items(benchmark)["kind"]
    features = song_features(model, items, ignore)
    assert len(features) == 12
    assert {array.shape for array in features.values()} == {(2, 24)}
    by_depth = probe_layers(features, load_items(benchmark), seed=0)
    assert by_depth["rare"] == [None, None]
    assert by_depth["kind"][0] == (12, 12), "noise and tones lie apart after the convolutions"


def test_probes_are_asked_about_songs_that_they_were_not_fitted_to():
    rng = np.random.default_rng(0)
    answers = ["a", "b"] * 100
    noise = rng.standard_normal((200, 40))  # as many numbers as would let it learn the answers by heart
    right, count = probe_accuracy(noise, answers, 0) or (0, 0)
    assert count == 200
    assert 70 <= right <= 130
    told = noise.copy()
    told[:, 3] += 8.0 * (np.array(answers) == "a")
    assert probe_accuracy(told, answers, 0) == (200, 200)
    assert probe_accuracy(told, ["a"] * 200, 0) is None
    assert probe_accuracy(told[:9], answers[:9], 0) is None
    lonely = ["a"] * 19 + ["b"]
    assert probe_accuracy(noise[:20], lonely, 0) is not None  # a fold without "b" has one answer only


def test_what_each_layer_gives_is_measured_once(options, tmp_path, monkeypatch):
    def answers(model, questions, progress):
        """A model that hears kinds by layer 0, and says no without it."""
        progress(len(questions))
        kernel = np.asarray(model.params["connector"]["linear1"]["kernel"])
        hears = bool(np.any(kernel[:24]))
        odd = [int(question.audio_files[0].stem) % 2 for question in questions]
        return ["yes" if hears and is_noise else "no" for is_noise in odd]

    monkeypatch.setattr(layer_attribution, "answer_all", answers)
    outcome = LayerAttribution().run(tmp_path, options, ignore)
    removed, _, alone, _, probes = outcome.tables
    assert removed.columns == ("task", "n", "all layers", "without layer 0", "without layer 1", "commonest answer")
    assert removed.rows[0] == ("kind", 12, 1.0, 0.5, 1.0, 0.5)
    assert alone.rows[0] == ("kind", 12, 1.0, 1.0, 0.5, 0.5)
    assert outcome.tables[1].rows[0][:3] == ("kind", "layer 0", -0.5)
    assert probes.rows[0][:3] == ("kind", 12, 1.0)
    assert probes.rows[1] == ("rare", 2, None, None, 0.5)
    assert outcome.answer.startswith("Kind misses layer 0 most (-0.50); kind is best read from layer 0 (1.00)")
    monkeypatch.setattr(layer_attribution.MuFun, "from_pretrained", None)
    assert LayerAttribution().run(tmp_path, options, ignore) == outcome


def test_several_models_are_means_and_spreads(options, checkpoint, tmp_path, monkeypatch):
    """The second model never hears: it says no to everything, and is right of the six tones."""
    deaf = tmp_path / "deaf"
    config = replace(SMALLEST, encoder=tiny_encoder(layers=1, taps=(0, 1)))
    params = random_params(config)
    linear = params["connector"]["linear1"]
    params["connector"]["linear1"] = linear | {"kernel": 0 * linear["kernel"]}
    save_model(deaf, config, params, load_tokenizer("nano"))

    def answers(model, questions, progress):
        hears = bool(np.any(np.asarray(model.params["connector"]["linear1"]["kernel"])[:24]))
        return ["yes" if hears and int(question.audio_files[0].stem) % 2 else "no" for question in questions]

    monkeypatch.setattr(layer_attribution, "answer_all", answers)
    two, told = replace(options, checkpoints=(str(checkpoint), str(deaf)), arms=("removed", "probes")), []
    outcome = LayerAttribution().run(tmp_path / "two", two, lambda *said: told.append(said))
    accuracy, changes, probes = outcome.tables
    assert accuracy.rows[0][2:5] == (0.75, 0.5, 0.75)
    # Layer 0 costs the first model half, the second nothing: their standard deviation is 0.5 / sqrt(2).
    assert changes.rows[0][2] == -0.25
    assert changes.rows[0][5] == pytest.approx(0.5 / 2**0.5)
    assert probes.rows[0][:3] == ("kind", 12, 1.0)
    assert {run["model"] for run in outcome.measured} == {0, 1}
    assert {note.split(",")[0] for *_, note in told} == {"model 1", "model 2"}
    with pytest.raises(UserError, match="2 checkpoints, and this experiment looks at one"):
        _ = two.checkpoint


def test_so_many_questions_of_each_task_are_asked(options, tmp_path, monkeypatch):
    asked = []

    def answers(model, questions, progress):
        asked.append([question.audio_files[0].stem for question in questions])
        return ["no"] * len(questions)

    monkeypatch.setattr(layer_attribution, "answer_all", answers)
    some = replace(options, limit=3, arms=("removed", "probes"), tasks=("kind",))
    outcome = LayerAttribution().run(tmp_path, some, ignore)
    assert asked == [["0", "4", "8"]] * 3, "from all over the task"
    assert outcome.tables[0].rows[0][1] == 3
    assert outcome.tables[2].rows[0][1] == 12, "probes are fitted to all songs"


def test_a_real_model_is_asked(options, tmp_path):
    quick = replace(options, quick=True, arms=("removed",), tasks=("rare",))
    outcome = LayerAttribution().run(tmp_path, quick, ignore)
    assert [row[:2] for row in outcome.tables[0].rows] == [("rare", 2)]


def test_what_is_missing_is_said(options, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="looks at a trained model: give --checkpoint"):
        LayerAttribution().run(tmp_path, replace(options, checkpoints=()), ignore)
    with pytest.raises(UserError, match="nothing to ask models: give --benchmark"):
        LayerAttribution().run(tmp_path, replace(options, benchmark=None), ignore)
    monkeypatch.setattr(layer_attribution, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"probes need scikit-learn.*mufun_jax\[experiment\]"):
        LayerAttribution().run(tmp_path, options, ignore)
