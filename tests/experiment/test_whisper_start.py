import hashlib
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from mufun_jax.errors import CheckpointError, ConfigError, UserError
from mufun_jax.experiment import trained_arms, whisper_start
from mufun_jax.experiment.experiment import Options
from mufun_jax.experiment.layer_ablation import last_layer
from mufun_jax.experiment.trained_arms import train_arms
from mufun_jax.experiment.whisper_start import whisper_digest, whisper_file, with_whisper, write_start
from mufun_jax.sharding.mesh import inference_mesh, make_mesh
from mufun_jax.weights.model_folder import load_model
from mufun_jax.weights.params import init_params
from tests.convert.test_ctranslate2 import variables_of, write
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import small_model
from tests.train.tiny_run import KilledError, tiny_run


@pytest.fixture(scope="module")
def reference():
    """A Whisper of four layers that hears two seconds."""
    return ReferenceModel(small_model(window_seconds=2))


@pytest.fixture(scope="module")
def whisper(reference, tmp_path_factory):
    return write(tmp_path_factory.mktemp("whisper") / "model.bin", variables_of(reference, "float16"))


def test_a_run_takes_the_whispers_sizes_and_freezes_it(tiny_corpus, whisper):
    run = with_whisper(tiny_run(tiny_corpus), whisper)
    encoder = run.model.encoder
    assert (encoder.layers, encoder.taps, encoder.width) == (4, (0, 1, 2, 4), 24)
    assert encoder.window_samples == 16_000, "the config's, not the Whisper's"
    assert {stage.encoder for stage in run.stages.values()} == {"frozen"}
    longer = replace(run, model=replace(run.model, encoder=replace(encoder, window_samples=48_000)))
    with pytest.raises(ConfigError, match="window_samples 48000 is more than the 32000 of"):
        with_whisper(replace(longer, curriculum=("warmup",), stages={"warmup": longer.stages["warmup"]}), whisper)
    with pytest.raises(ConfigError, match="two beginnings"):
        with_whisper(replace(run, initial_model="somewhere"), whisper)
    with pytest.raises(CheckpointError, match=r"nowhere\.bin: no model here"):
        with_whisper(run, whisper.parent / "nowhere.bin")


def test_the_start_has_the_whispers_values_and_the_seeds(tiny_corpus, whisper, reference, tmp_path):
    run = replace(with_whisper(tiny_run(tiny_corpus), whisper), seed=3)
    begun = write_start(run, whisper, tmp_path)
    assert begun.initial_model == str(tmp_path / "model")
    params = load_model(tmp_path / "model", inference_mesh(), "float32").params
    state = {name: value.detach().numpy() for name, value in reference.encoder.named_parameters()}
    rounded = {name: value.astype(np.float16).astype(np.float32) for name, value in state.items()}
    encoder = params["encoder"]
    np.testing.assert_array_equal(encoder["positions"], rounded["embed_positions.weight"][:50])
    np.testing.assert_array_equal(encoder["conv1"]["kernel"], rounded["conv1.weight"].transpose(2, 1, 0))
    for layer in range(4):
        up = np.asarray(encoder["layers"]["up"]["kernel"])[layer]
        np.testing.assert_array_equal(up, rounded[f"layers.{layer}.fc1.weight"].T)
    fresh = init_params(run.model, make_mesh(run.mesh), 3)
    for part in ("connector", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, params[part], jax.tree.map(np.asarray, fresh[part]))
    before = (tmp_path / "model" / "config.json").stat().st_mtime_ns
    assert write_start(run, whisper, tmp_path) == begun
    assert (tmp_path / "model" / "config.json").stat().st_mtime_ns == before, "it is written once"


def test_every_arm_begins_from_the_same_encoder_with_its_own_taps(tiny_corpus, whisper, tmp_path, monkeypatch):
    run = with_whisper(tiny_run(tiny_corpus), whisper)
    begun = []

    def train(run, folder, callbacks):
        begun.append(run)
        raise KilledError

    monkeypatch.setattr(trained_arms, "train_curriculum", train)
    options = Options(run, whisper=whisper)
    for arm, of in {"tapped": run, "last": last_layer(run)}.items():
        with pytest.raises(KilledError):
            train_arms(tmp_path, {arm: of}, options, lambda *_: None, scored=False)
    folders = [load_model(Path(str(each.initial_model)), inference_mesh(), "float32") for each in begun]
    assert [folder.config.model.encoder.taps for folder in folders] == [(0, 1, 2, 4), (4,)]
    one, other = (folder.params["encoder"] for folder in folders)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_another_whisper_is_another_start(reference, whisper, tmp_path):
    variables = variables_of(reference, "float16")
    assert whisper_digest(write(tmp_path / "same.bin", variables)) == whisper_digest(whisper)
    variables["encoder/conv1/bias"] = variables["encoder/conv1/bias"] + np.float16(1)
    assert whisper_digest(write(tmp_path / "other.bin", variables)) != whisper_digest(whisper)


def test_whisper_base_is_put_together_and_checked(tmp_path, monkeypatch):
    assert whisper_file("some/folder", tmp_path).parts == ("some", "folder")
    monkeypatch.setattr(whisper_start, "_PACKAGES", ("whisper_half_one", "whisper_half_two"))
    with pytest.raises(UserError, match=r"not installed: pip install 'mufun_jax\[whisper\]'"):
        whisper_file("base", tmp_path)
    for number, package in enumerate(("whisper_half_one", "whisper_half_two"), 1):
        (tmp_path / package / "data").mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "data" / f"model.bin.part{number}").write_bytes(b"half" * number)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CheckpointError, match=r"SHA-256 [0-9a-f]{64} is not d01c3014.*; install them again"):
        whisper_file("base", tmp_path / "work")
    assert not (tmp_path / "work").exists()
    monkeypatch.setattr(whisper_start, "_SHA256", hashlib.sha256(b"halfhalfhalf").hexdigest())
    assert whisper_file("base", tmp_path / "work").read_bytes() == b"halfhalfhalf"


def test_what_trains_nothing_has_no_beginning(run, tmp_path, whisper):
    code, _, err = run("experiment", "context-boundary", "--whisper", whisper, "--workdir", tmp_path)
    assert code == 2
    assert err == "error: context-boundary trains nothing: --whisper is where training begins\n"
