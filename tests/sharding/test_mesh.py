import subprocess
import sys

import jax
import pytest

from mufun_jax.config import MeshConfig
from mufun_jax.errors import ConfigError
from mufun_jax.sharding.mesh import inference_mesh, make_mesh
from mufun_jax.sharding.rules import RULES, partition_spec


def test_a_mesh_has_the_four_axes():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2))
    assert dict(mesh.shape) == {"data": 1, "fsdp": 2, "tensor": 1, "context": 1}


def test_a_mesh_for_other_devices_is_refused_with_both_numbers():
    with pytest.raises(ConfigError, match=r"data 2 x fsdp 1 x tensor 3 x context 1 = 6 devices, but 2 are here"):
        make_mesh(MeshConfig(data=2, tensor=3))


def test_inference_takes_one_device_of_a_cpu():
    assert inference_mesh().size == 1


def test_two_axes_on_one_mesh_axis_are_refused():
    assert partition_spec(("embed", "mlp"), "x") == jax.sharding.PartitionSpec(("fsdp",), ("tensor",))
    with pytest.raises(ValueError, match=r"x: 'heads' and 'mlp' both lie on mesh axis 'tensor'"):
        partition_spec(("heads", "mlp"), "x")
    with pytest.raises(ValueError, match=r"x: logical axis 'mlpp' has no rule"):
        partition_spec(("mlpp",), "x")


def test_rules_name_mesh_axes():
    assert {axis for mesh_axes in RULES.values() for axis in mesh_axes} == {"data", "fsdp", "tensor", "context"}


# One step of a small model on other meshes of four devices: same loss, same parameters after it.
MESHES = ("data=4", "fsdp=4", "data=2,fsdp=2", "fsdp=2,tensor=2", "context=4", "tensor=2,context=2")
PROGRAM = """
import sys
from pathlib import Path
import jax, numpy as np
from mufun_jax.config import load_run_config
from mufun_jax.sharding.mesh import simulate_devices
from mufun_jax.train.curriculum import train_curriculum
from mufun_jax.train.metrics import read_metrics
from mufun_jax.weights.model_folder import load_model
from mufun_jax.sharding.mesh import inference_mesh

corpus, out = Path(sys.argv[1]), Path(sys.argv[2])
results = []
for mesh in sys.argv[3:]:
    sizes = dict(data=1, fsdp=1, tensor=1, context=1) | {k: int(v) for k, v in (p.split("=") for p in mesh.split(","))}
    settings = [f"mesh.{axis}={size}" for axis, size in sizes.items()] + ["mesh.simulated_devices=4"]
    settings += [f"data={corpus}", "curriculum=('align',)", "stages.align.steps=2"]
    settings += [f"stages.{name}.rows=4" for name in ("warmup", "align", "long")]
    settings += ["model.decoder.kv_heads=2"]
    run = load_run_config(corpus / "tiny.py", settings)
    simulate_devices(run.mesh)
    folder = train_curriculum(run, out / mesh)
    losses = [line["loss"] for line in read_metrics(out / mesh / "metrics.jsonl")]
    norms = [line["gradient_norm"] for line in read_metrics(out / mesh / "metrics.jsonl")]
    results.append((mesh, losses, norms))
for mesh, losses, norms in results:
    np.testing.assert_allclose(losses, results[0][1], rtol=1e-5, err_msg=mesh)
    np.testing.assert_allclose(norms, results[0][2], rtol=1e-4, err_msg=mesh)
print("agree", len(results))
"""


def test_every_mesh_takes_the_same_step(tmp_path):
    from tests.train.tiny_run import tiny_run, write_tiny_corpus

    corpus = write_tiny_corpus(tmp_path)
    tiny_run(corpus)
    arguments = [sys.executable, "-c", PROGRAM, str(corpus), str(tmp_path / "out"), *MESHES]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "agree 6" in result.stdout
