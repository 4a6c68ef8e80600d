"""Takes one train step of a small model in several ways, on meshes of simulated devices, and keeps what came of each.

    python -m tests.sharding.one_step OUT DEVICES CASES

CASES is JSON: {name: settings}, settings as those of `--set`, and "rows=packed" or "rows=unpacked". OUT/name.npz has
the metrics, the gradient of each parameter that trains (`gradient.…`), and all parameters before and after the step
(`before.…`, `after.…`).
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.encode import Budget, EncodedExample
from data_pipelines.pack import build_row
from mufun_jax.axes import MESH_AXES
from mufun_jax.batch import Batch
from mufun_jax.config import MeshConfig, RunConfig
from mufun_jax.config_file import load_run_config
from mufun_jax.model import vocabulary
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.sharding.mesh import simulate_devices
from mufun_jax.sharding.rules import sharding_context
from mufun_jax.train.state import LORA, finish_stage, precise_and_in_use, split_params, start_stage
from mufun_jax.train.step import compile_train_step, make_train_step
from mufun_jax.weights.params import param_shardings
from tests.tiny import random_params, random_windows

# With b1 = 0 and no clipping Adam's first moment is the gradient. A large epsilon: else a gradient of nearly nothing
# becomes a step of full size, in a direction that rounding decides.
CONFIG = """
from ml_collections import ConfigDict

def get_config():
    return ConfigDict(dict(
        model=dict(
            encoder=dict(mel_bins=80, width=16, layers=2, heads=4, mlp_width=24, taps=(0, 1, 2), window_samples=16000),
            connector_width=20,
            decoder=dict(vocab_size=16, width=16, layers=2, heads=8, kv_heads=4, head_size=6, mlp_width=28,
                         tied_embeddings=False),
            max_windows=3,
        ),
        tokenizer="nano", data="", compute_dtype="float32",
        mesh=dict(), optimizer=dict(b1=0.0, clip_norm=1e30, epsilon=0.01), lora=dict(rank=3, alpha=5.0),
        curriculum=("s",),
        stages=dict(s=dict(mixture=dict(a=1.0), rows=8, positions=64, windows=3, targets=16, longest_audio=3.0, steps=1,
                           learning_rate=0.01)),
    ))
"""


def main(out: Path, devices: int, cases: dict[str, list[str]]) -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # they take most of the time here
    simulate_devices(MeshConfig(simulated_devices=devices))
    vocabulary.TILE = 8  # the vocabulary in two tiles
    config = out / "config.py"
    config.write_text(CONFIG)
    for name, settings in cases.items():
        rows = "unpacked" if "rows=unpacked" in settings else "packed"
        settings = [setting for setting in settings if not setting.startswith("rows=")]
        if rows == "unpacked":
            settings = [*settings, "stages.s.rows=16"]
        np.savez(
            out / f"{name}.npz", allow_pickle=False, **take_step(load_run_config(config, settings), rows == "packed")
        )
        print(name, flush=True)


def take_step(run: RunConfig, packed: bool) -> dict[str, np.ndarray]:
    """The step on a mesh of the first devices."""
    devices = jax.devices()[: int(np.prod(run.mesh.shape))]
    automatic = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    mesh = jax.make_mesh(run.mesh.shape, MESH_AXES, axis_types=automatic, devices=devices)
    stage = run.stages["s"]
    params = jax.device_put(random_params(run.model), param_shardings(run.model, mesh))
    before = flat("before", params)
    frozen = split_params(params, stage.trained_parts)[1]
    state = start_stage(run, stage, params, mesh, seed=0)
    if LORA in state.trained:
        state.trained[LORA] = moved(state.trained[LORA])
    frozen, in_use = precise_and_in_use(frozen, run.compute_dtype)
    with sharding_context(mesh):
        step = compile_train_step(make_train_step(run, stage, "cpu"), state, in_use, mesh)
        batch = LocalRows(mesh, stage.rows).to_device(batch_of(run, packed))
        state, metrics = step(state, in_use, batch, jnp.float32(stage.learning_rate))
    after = finish_stage(run, state, frozen)
    return {
        **{name: np.asarray(value) for name, value in metrics.items()},
        **flat("gradient", state.opt_state[1].mu),  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
        **before,
        **flat("after", after),
    }


def batch_of(run: RunConfig, packed: bool) -> Batch:
    """Sixteen examples of many lengths, two in each row or one; some have two windows of sound, some none."""
    stage, encoder = run.stages["s"], run.model.encoder
    budget = Budget(stage.positions, stage.windows, stage.targets)
    rng = np.random.default_rng(0)
    examples = [example(rng, number % 3, run) for number in range(16)]
    together = 2 if packed else 1
    rows = [
        build_row(examples[first : first + together], budget, encoder.window_samples, encoder.tokens_per_window)
        for first in range(0, len(examples), together)
    ]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def example(rng: np.random.Generator, windows: int, run: RunConfig) -> EncodedExample:
    """Random tokens with the sound in their midst, the last few of them targets."""
    audio = windows * run.model.encoder.tokens_per_window
    length, targets = audio + int(rng.integers(6, 12)), int(rng.integers(2, 5))
    tokens = rng.integers(0, run.model.decoder.vocab_size, length).astype(np.int32)
    audio_slot = np.full(length, -1, np.int32)
    audio_slot[2 : 2 + audio] = np.arange(audio)
    target_index = np.arange(length - targets - 1, length - 1, dtype=np.int32)
    samples = random_windows(rng, max(windows, 1), run.model.encoder.window_samples)[:windows]
    return EncodedExample(tokens, audio_slot, samples, target_index, tokens[target_index + 1], 0)


def moved(adapters: Any) -> Any:
    """Adapters as if they had trained: without B zero, where A would have no gradient."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: jax.device_put(0.1 * rng.standard_normal(leaf.shape, np.float32), leaf.sharding), adapters
    )


def flat(prefix: str, tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        f"{prefix}.{jax.tree_util.keystr(path, simple=True, separator='.')}": np.asarray(leaf) for path, leaf in leaves
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
