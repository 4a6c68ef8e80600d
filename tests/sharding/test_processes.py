"""Training on several processes is training on one: the same losses, the same model, the same examples after a stop."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mufun_jax.config import MeshConfig
from mufun_jax.errors import ConfigError
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.sharding.processes import Processes
from mufun_jax.train.curriculum import train_curriculum
from mufun_jax.train.metrics import read_metrics
from mufun_jax.weights.model_folder import open_model_folder
from tests.sharding.train_meshes import STEPS, mesh_run

ROOT = Path(__file__).parent.parent.parent
LAUNCHER = str(ROOT / "launch" / "local_pod.sh")


def pod(processes: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a Python module as so many processes, each with the devices that it simulates."""
    command = [LAUNCHER, str(processes), sys.executable, "-m", *map(str, arguments)]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MUFUN_")}
    return subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False, timeout=900)


def train(processes: int, tiny_corpus: Path, out: Path, devices: int, *meshes: str) -> None:
    result = pod(processes, "tests.sharding.train_meshes", tiny_corpus, out, devices, *meshes)
    assert result.returncode == 0, result.stderr[-3000:]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Losses, gradient norms and models within 1e-5; what was read, exactly."""
    lines, expected = list(read_metrics(ours / "metrics.jsonl")), list(read_metrics(theirs / "metrics.jsonl"))
    assert [line["global_step"] for line in lines] == list(range(1, STEPS + 1))
    for name in ("loss", "gradient_norm"):
        np.testing.assert_allclose([line[name] for line in lines], [line[name] for line in expected], rtol=1e-5)
    for name in ("examples", "dropped_windows", "target_tokens", "positions_used", "windows_used"):
        assert [line[name] for line in lines] == [line[name] for line in expected], name
    assert all(line["dropped_windows"] > 0 and line["examples"] == 4 for line in lines)
    model, reference = (open_model_folder(run / "checkpoint").tensors for run in (ours, theirs))
    assert model.keys() == reference.keys()
    for name, tensor in reference.items():
        np.testing.assert_allclose(model[name].read(), tensor.read(), rtol=1e-5, atol=1e-5, err_msg=name)


def without_its_end(workdir: Path, copy: Path) -> Path:
    """A copy of a finished run as if it had been stopped after step 4."""
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / str(STEPS))
    shutil.rmtree(copy / "checkpoint")
    return copy


@pytest.fixture(scope="module")
def alone(tiny_corpus, tmp_path_factory):
    """The run of this process, on two devices."""
    workdir = tmp_path_factory.mktemp("alone")
    train_curriculum(mesh_run(tiny_corpus, 2, "data=2"), workdir)
    return workdir


def test_two_processes_train_as_one_and_one_goes_on_where_two_were_stopped(tiny_corpus, alone, tmp_path):
    """On `context`: both processes read the same rows, and keep half of each. One goes on on another mesh, `data`."""
    train(2, tiny_corpus, tmp_path, 1, "context=2")
    assert_same_run(tmp_path / "context=2", alone)
    stopped = without_its_end(tmp_path / "context=2", tmp_path / "stopped")
    train_curriculum(mesh_run(tiny_corpus, 2, "data=2"), stopped)
    assert_same_run(stopped, alone)


@pytest.mark.slow
def test_one_two_and_four_processes_on_every_axis(tiny_corpus, alone, tmp_path):
    """Four devices, of two processes, of four, of one; of a mesh, the first axis spans two processes, all span four. A
    run that was stopped on two goes on on four and on one."""
    two, four, one = tmp_path / "two", tmp_path / "four", tmp_path / "one"
    train(2, tiny_corpus, two, 2, "fsdp=4", "tensor=2,context=2", "data=2,fsdp=2")
    for other in (four, one):
        without_its_end(two / "data=2,fsdp=2", other / "data=2,fsdp=2")
    train(4, tiny_corpus, four, 1, "data=2,fsdp=2", "tensor=2,context=2")
    train(1, tiny_corpus, one, 4, "data=2,fsdp=2", "tensor=2,context=2")
    runs = [*two.iterdir(), *four.iterdir(), *one.iterdir()]
    assert len(runs) == 7
    for run in runs:
        assert_same_run(run, alone)


def test_rows_lie_where_the_mesh_has_them_and_a_process_that_fails_ends_all():
    """On all meshes of two processes with two devices, also where a process's devices are no neighbours in the mesh."""
    result = pod(2, "tests.sharding.place_rows")
    assert result.returncode == 1
    assert "process 1 of 2 ended with exit code 1" in result.stderr
    assert "RuntimeError: this process is broken" in result.stderr
    assert "process 0 of 2 read [(0, 1, 2, 3), (0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 4, 5), (2, 3, 6, 7)]" in result.stdout
    assert "process 1 of 2 read [(0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 4, 5), (2, 3, 6, 7), (4, 5, 6, 7)]" in result.stderr


@pytest.mark.parametrize(
    ("workdir", "seed", "message"),
    [
        ("one", "$MUFUN_PROCESS", "process 1 of 2 has another config than process 0: "),
        ("$MUFUN_PROCESS", "0", "process 1 of 2 does not see what process 0 writes there: "),
    ],
)
def test_the_command_takes_part_and_what_is_not_the_same_for_all_is_found(
    tiny_corpus, tmp_path, workdir, seed, message
):
    mufun = f"{sys.executable} -m mufun_jax.cli train --config {tiny_corpus / 'tiny.py'} --set data={tiny_corpus}"
    command = f"{mufun} --workdir {tmp_path}/{workdir} --set mesh.simulated_devices=1 --set seed={seed}"
    arguments = [LAUNCHER, "2", "bash", "-c", command]
    result = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 2
    assert result.stderr.count("error: ") >= 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("*/.process-0-*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 2}, "--processes without --coordinator, --process: "),
        ({"coordinator": "a:1", "number": 0}, "--coordinator, --process without --processes: "),
        ({"distributed": True, "count": 2}, "--distributed finds the processes by itself: leave out --processes"),
        ({"coordinator": "a:1", "count": 2, "number": 2}, "--process 2 of --processes 2: they are numbered 0 to 1"),
        ({"coordinator": "a:1", "count": 2, "number": -1}, "--process -1 of --processes 2: they are numbered 0 to 1"),
        ({"coordinator": "a:1", "count": 0, "number": 0}, "--processes 0: at least 1"),
        ({"coordinator": "host", "count": 2, "number": 0}, "--coordinator host: write HOST:PORT"),
        ({"coordinator": "host:70000", "count": 2, "number": 0}, "--coordinator host:70000: write HOST:PORT"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        Processes(**options)


def test_options_and_environment_are_read(tiny_corpus, tmp_path, monkeypatch, capsys):
    from mufun_jax import cli

    command = ["mufun", "train", "--config", str(tiny_corpus / "tiny.py"), "--workdir", str(tmp_path)]
    monkeypatch.setenv("MUFUN_PROCESSES", "3")
    monkeypatch.setenv("MUFUN_COORDINATOR", "a:1")
    monkeypatch.setattr(sys, "argv", [*command, "--process", "4"])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err == "error: --process 4 of --processes 3: they are numbered 0 to 2\n"


@pytest.mark.parametrize(
    ("mesh", "processes", "message"),
    [
        ({"data": 6, "simulated_devices": 2}, 1, "= 6 devices, but 2 are here; for instance --set mesh.simulated_d"),
        ({"data": 6}, 2, "= 6 devices, but 2 are here, of 2 processes; for instance --set mesh.data=2"),
        (
            {"data": 4, "simulated_devices": 1},
            2,
            "2 are here, of 2 processes; for instance --set mesh.simulated_devices=2 (2 on each process)",
        ),
        ({"data": 4, "fsdp": 3}, 1, "for instance --set mesh.fsdp=2 --set mesh.data=1"),
    ],
)
def test_a_mesh_for_other_processes_is_refused_with_a_choice_that_fits(monkeypatch, mesh, processes, message):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_mesh(MeshConfig(**mesh))
