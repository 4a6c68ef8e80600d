"""The whole train step, from int16 windows to new weights, against PyTorch's on a tiny model."""

import jax

from mufun_jax.config import MeshConfig, OptimizerConfig, RunConfig, StageConfig
from mufun_jax.sharding.local_rows import LocalRows
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.sharding.rules import sharding_context, tree_shardings
from mufun_jax.train.state import start_stage
from mufun_jax.train.step import compile_train_step, make_train_step
from mufun_jax.weights.params import abstract_params
from tests.benchmarks.step_batch import make_batch
from tests.benchmarks.torch_step import TorchStep
from tests.parity.reference_model import ReferenceModel, params_of
from tests.tiny import relative_error, tiny_model


def test_two_steps_give_pytorchs_losses_norms_and_weights():
    """Packed rows with windows and positions unused; gradients are clipped and weights decay.

    To 1e-4: PyTorch's log-mel is float32. A large epsilon, as AdamW makes whole steps of gradients that are none.
    """
    model = tiny_model(max_windows=4)
    stage = StageConfig({"none": 1.0}, rows=2, positions=170, windows=4, targets=16, longest_audio=4.0, steps=2)
    optimizer = OptimizerConfig(b1=0.9, b2=0.98, epsilon=1e-2, weight_decay=0.1, clip_norm=0.5)
    mesh = MeshConfig(data=2)
    run = RunConfig(
        model,
        "nano",
        "",
        stages={"one": stage},
        curriculum=("one",),
        optimizer=optimizer,
        mesh=mesh,
        compute_dtype="float32",
    )
    batch = make_batch(model, stage, [(1, 2), (3,)], seed=0)
    reference = ReferenceModel(model)
    devices = make_mesh(run.mesh)
    params = jax.device_put(params_of(reference), tree_shardings(abstract_params(model), devices))
    state = start_stage(run, stage, params, devices, 0)
    torch_step = TorchStep(reference, optimizer)
    with sharding_context(devices):
        step = compile_train_step(make_train_step(run, stage, "cpu"), state, {}, devices)
        for learning_rate in (1e-2, 5e-3):
            state, metrics = step(state, {}, LocalRows(devices, len(batch.tokens)).to_device(batch), learning_rate)
            loss, norm = torch_step(batch, learning_rate)
            assert norm > optimizer.clip_norm
            assert abs(float(metrics["loss"]) - float(loss)) < 1e-4 * float(loss)
            assert abs(float(metrics["gradient_norm"]) - float(norm)) < 1e-4 * float(norm)
    compared = jax.tree.map(relative_error, state.trained, params_of(reference))
    worst = max(jax.tree_util.tree_leaves_with_path(compared), key=lambda item: item[1])
    assert worst[1] < 1e-4, worst
