"""Low-rank adapters: what they add is what is merged, and a run with them ends in plain weights."""

from dataclasses import replace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mufun_jax.batch import Batch
from mufun_jax.config import LoraConfig, MeshConfig
from mufun_jax.errors import ConfigError
from mufun_jax.model.mufun import MuFunModel
from mufun_jax.model.vocabulary import TokenLosses
from mufun_jax.sharding.mesh import inference_mesh, make_mesh
from mufun_jax.train.curriculum import Callbacks, train_curriculum
from mufun_jax.train.lora import init_adapters, merge, scaled
from mufun_jax.train.metrics import read_metrics
from mufun_jax.weights.model_folder import load_model, open_model_folder
from mufun_jax.weights.params import init_params
from tests.tiny import random_params, random_windows, relative_error, tiny_model
from tests.train.tiny_run import KilledError, tiny_run

LORA = LoraConfig(rank=3, alpha=5.0)
PARTS = ("encoder", "decoder")


def fresh(config: LoraConfig = LORA):
    return init_adapters(tiny_model(), config, PARTS, make_mesh(MeshConfig(data=2)), seed=0)


def moved(adapters):
    """Adapters as if they had trained."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32), adapters)


def batch() -> Batch:
    """One row of two windows and text, every position a target."""
    config, rng = tiny_model(), np.random.default_rng(0)
    length = 32
    audio_slot = np.full((1, length), -1, np.int32)
    audio_slot[0, 3:23] = np.arange(20)
    tokens = rng.integers(0, config.decoder.vocab_size, (3, 1, length)).astype(np.int32)
    parts = Batch(
        tokens=tokens[0],
        audio_slot=audio_slot,
        positions=np.arange(length, dtype=np.int32)[None],
        segment_ids=np.ones((1, length), np.int32),
        samples=random_windows(rng, 2, config.encoder.window_samples)[None],
        window_mask=np.ones((1, 2), bool),
        target_index=np.arange(length, dtype=np.int32)[None],
        targets=tokens[1],
        target_weights=np.ones((1, length), np.float32),
        target_set=np.zeros((1, length), np.int32),
    )
    return jax.tree.map(jnp.asarray, parts)


@jax.jit
def apply_model(variables, batch: Batch) -> jax.Array:
    return cast(TokenLosses, MuFunModel(tiny_model()).apply(variables, batch, method=MuFunModel.losses)).losses


def losses(params, adapters=None) -> np.ndarray:
    return np.asarray(apply_model({"params": params, "lora": adapters or {}}, batch()))


def test_adapters_are_merged_weights():
    params = jax.tree.map(jnp.asarray, random_params(tiny_model()))
    adapters = moved(fresh())
    merged = losses(merge(params, adapters, LORA))
    assert relative_error(losses(params, scaled(adapters, LORA)), merged) < 1e-6
    assert relative_error(losses(params), merged) > 0.01


def test_fresh_adapters_add_nothing():
    params = jax.tree.map(jnp.asarray, random_params(tiny_model()))
    np.testing.assert_array_equal(losses(params, scaled(fresh(), LORA)), losses(params))


def test_fresh_adapters_are_drawn_each_for_itself():
    leaves = jax.tree_util.tree_flatten_with_path(fresh())[0]
    drawn = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    a = {name: leaf for name, leaf in drawn.items() if name.endswith("['a']")}
    assert len(a) == len(drawn) / 2 == 6 + 7  # of the encoder, whose feed-forward has no gate, and of the decoder
    assert all((drawn[name] == 0).all() for name in drawn if name not in a)
    assert len({leaf.flat[0] for leaf in a.values()}) == len(a)
    wide = a["['decoder']['layers']['down']['a']"]
    assert wide.shape == (3, 44, 3) and abs(wide.std() * 44**0.5 - 1) < 0.15


def test_only_the_targets_have_adapters():
    adapters = fresh(LoraConfig(rank=2, targets=("query", "gate")))
    assert set(adapters["encoder"]["layers"]) == {"query"}
    assert set(adapters["decoder"]["layers"]) == {"query", "gate"}


def test_an_unknown_target_is_named_with_the_nearest():
    message = r"lora.targets: no projection 'querry' \(did you mean 'query'\?\); known: down, gate, key, out, query, up"
    with pytest.raises(ConfigError, match=message):
        fresh(replace(LORA, targets=("key", "querry")))


def test_a_run_with_adapters_resumes_bit_for_bit_and_ends_in_plain_weights(tiny_corpus, tmp_path):
    parts = ("stages.align.encoder=lora", "stages.align.decoder=lora")
    run = tiny_run(tiny_corpus, "curriculum=('align',)", *parts, "lora={'rank': 2}")

    def kill(stage, step, *_):
        if step == 5:
            raise KilledError

    whole = train_curriculum(run, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_curriculum(run, tmp_path / "killed", Callbacks(on_step=kill))
    killed = train_curriculum(run, tmp_path / "killed")
    of_whole, of_killed = (
        [line["loss"] for line in read_metrics(folder.parent / "metrics.jsonl")] for folder in (whole, killed)
    )
    assert len(of_whole) == 6 and of_killed == of_whole
    params, resumed = (load_model(folder, inference_mesh(), "float32").params for folder in (whole, killed))
    jax.tree.map(np.testing.assert_array_equal, resumed, params)
    assert not [name for name in open_model_folder(whole).tensors if "lora" in name]

    start = init_params(run.model, make_mesh(run.mesh), run.seed)
    changed = jax.tree.map(lambda after, before: bool((np.asarray(after) != np.asarray(before)).any()), params, start)
    assert all(jax.tree.leaves(changed.pop("connector")))
    for path, differs in jax.tree_util.tree_flatten_with_path(changed)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        assert differs == (".layers." in name and name.endswith(".kernel")), name
