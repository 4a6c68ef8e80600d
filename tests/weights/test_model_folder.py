"""Model folders: read in parts by each device, written whole or not at all, on one process or several."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from safetensors.torch import load_file

from mufun_jax import MuFun
from mufun_jax.axes import MESH_AXES
from mufun_jax.convert.from_torch import from_hf
from mufun_jax.errors import CheckpointError, ConfigError
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.weights import safetensors_file
from mufun_jax.weights.model_folder import load_params, open_model_folder
from mufun_jax.weights.weight_table import Entry
from tests.parity.reference_model import ReferenceModel, params_of
from tests.released_folder import released_tensors, small_model, write_released
from tests.tiny import tiny_encoder

HEADS = tiny_encoder(layers=4, heads=4, taps=(0, 1, 2, 4))
EVEN = replace(small_model(), encoder=HEADS)  # everything splits in two


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    return ReferenceModel(small_model())


@pytest.fixture
def source(reference, tmp_path) -> Path:
    return write_released(tmp_path / "source", reference)


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["fsdp", "tensor", "data"])
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_each_device_reads_its_own_part(tmp_path, axis, quantize, monkeypatch):
    """Loaded onto two devices: the values of one device, and no array larger than one device's part of its leaf."""
    config = replace(EVEN, decoder=replace(EVEN.decoder, vocab_size=516))
    source = write_released(tmp_path / "source", ReferenceModel(config))
    mesh = mesh_of(axis)
    read: dict[str, int] = {}
    original = Entry.read_into

    def counting(self, values, stored, index):
        read[self.released_name] = max(read.get(self.released_name, 0), values.size)
        original(self, values, stored, index)

    monkeypatch.setattr(Entry, "read_into", counting)
    folder = open_model_folder(source)
    params = load_params(folder, mesh, "float32", quantize)
    expected = load_params(folder, inference_mesh(), "float32", quantize)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    split = [leaf for leaf in jax.tree.leaves(params) if not leaf.sharding.is_fully_replicated]
    assert bool(split) == (axis != "data")
    for leaf in split:
        assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // 2}
    name = "language_model.model.layers.0.mlp.down_proj.weight"
    whole = config.decoder.width * config.decoder.mlp_width
    assert read[name] <= whole if axis == "data" else whole // 2


def test_a_mesh_that_does_not_divide_is_an_error_with_both_numbers(source):
    with pytest.raises(ConfigError, match=r"decoder.embedding \[515, 28\] does not split evenly .* tensor 2"):
        load_params(open_model_folder(source), mesh_of("tensor"), "float32")


def mesh_of(axis: str) -> Mesh:
    """Two devices along one axis."""
    shape = [2 if name == axis else 1 for name in MESH_AXES]
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def test_a_replicated_leaf_is_read_once(source, monkeypatch):
    mesh = mesh_of("data")
    reads = []
    original = Entry.read_into
    monkeypatch.setattr(
        Entry, "read_into", lambda self, *args: reads.append(self.released_name) or original(self, *args)
    )
    load_params(open_model_folder(source), mesh, "float32")
    assert len(reads) == len(set(reads))


def test_dtypes_on_the_way_in(reference, source):
    params = load_params(open_model_folder(source), inference_mesh(), "bfloat16")
    expected = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), params_of(reference))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"bfloat16"}


def test_from_pretrained_is_bfloat16_by_default_and_says_how_far_it_is(source):
    calls = []
    model = MuFun.from_pretrained(source, advance=lambda *args: calls.append(args))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(model.params)} == {"bfloat16"}
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] == 2 * sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert model.logits("key?").shape == (515,)


def test_a_single_file_without_an_index(reference, source, tmp_path):
    """As small models are on the hub."""
    from safetensors.torch import save_file

    for path in [*source.glob("model-*"), source / "model.safetensors.index.json"]:
        path.unlink()
    save_file(released_tensors(reference), source / "model.safetensors")
    from_hf(source, tmp_path / "ours")
    assert open_model_folder(source).config.model == open_model_folder(tmp_path / "ours").config.model


def test_remote_code_is_not_run(source):
    assert "SystemExit" in (source / "modeling_tinyllava.py").read_text()
    MuFun.from_pretrained(source)


def test_a_name_on_the_hub(source, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **options: asked.append((name, options)) or str(source)
    )
    monkeypatch.chdir(tmp_path)
    model = MuFun.from_pretrained("Yi3852/MuFun-Instruct")
    assert asked[0][0] == "Yi3852/MuFun-Instruct"
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in asked[0][1]["allow_patterns"])
    assert model.config == small_model()


def test_no_folder_and_no_hub_is_one_line(monkeypatch, tmp_path):
    def unreachable(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        MuFun.from_pretrained("runs/nowhere")
    assert str(caught.value) == (
        "runs/nowhere: no model here: there is no such folder, and the hub did not give it: no connection"
    )
    with pytest.raises(CheckpointError, match=r"^/no/where: no model here: there is no such folder$"):
        MuFun.from_pretrained("/no/where")
    with pytest.raises(CheckpointError, match=r"no config.json"):
        MuFun.from_pretrained(tmp_path)


# --- writing ---------------------------------------------------------------------------------------------------------


def nothing_is_left(tmp_path, *kept) -> bool:
    return sorted(path.name for path in tmp_path.iterdir()) == sorted(["source", *kept])


def test_a_disk_that_fills_up_half_way_leaves_nothing(source, tmp_path, monkeypatch):
    budget = 30_000
    original = safetensors_file._write_fully

    def write(output, data):
        nonlocal budget
        budget -= len(data)
        if budget < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(output, data)

    monkeypatch.setattr(safetensors_file, "_write_fully", write)
    with pytest.raises(CheckpointError, match=r"ours: cannot be written: No space left on device; nothing is left"):
        from_hf(source, tmp_path / "ours")
    assert nothing_is_left(tmp_path)


def test_a_model_that_is_there_survives_a_failed_overwrite(reference, source, tmp_path, monkeypatch):
    from_hf(source, tmp_path / "ours")
    before = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}

    def full(output, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(safetensors_file, "_write_fully", full)
    with pytest.raises(CheckpointError, match="No space left"):
        from_hf(source, tmp_path / "ours", overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()} == before
    assert nothing_is_left(tmp_path, "ours")


def test_a_file_size_limit_of_the_system(source, tmp_path):
    """A real failing write in a real process: exit code 2, one line, nothing left."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000));"
        "from mufun_jax import cli; sys.argv = ['mufun', *sys.argv[1:]]; cli.main()"
    )
    arguments = [sys.executable, "-c", code, "convert", "from-hf", str(source), str(tmp_path / "ours")]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'ours'}: cannot be written: File too large")
    assert "Traceback" not in result.stderr
    assert nothing_is_left(tmp_path)


def test_a_killed_conversion_leaves_no_target_and_the_next_one_cleans_up(reference, source, tmp_path):
    """SIGKILL in the middle of writing: no folder of the target's name, and a second run is as if it were the first."""
    code = (
        "import sys, time; from pathlib import Path; from mufun_jax.convert.from_torch import from_hf\n"
        "def slow(done, total, note=''): print(done, flush=True); time.sleep(0.02)\n"
        "from_hf(sys.argv[1], Path(sys.argv[2]), advance=slow)"
    )
    arguments = [sys.executable, "-c", code, str(source), str(tmp_path / "ours")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > 20_000:
                process.send_signal(signal.SIGKILL)
                break
    assert not (tmp_path / "ours").exists()
    from_hf(source, tmp_path / "ours")
    assert nothing_is_left(tmp_path, "ours")
    found = {}
    for path in (tmp_path / "ours").glob("*.safetensors"):
        found |= load_file(path)
    assert set(found) == set(released_tensors(reference))


PROCESS = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from pathlib import Path
from jax.sharding import AxisType, Mesh
from mufun_jax.axes import MESH_AXES
from mufun_jax.weights.model_folder import load_model, save_model

mesh = jax.make_mesh((1, 2, 1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 4)
loaded = load_model(Path(sys.argv[3]), mesh, "float32")
kernel = loaded.params["decoder"]["layers"]["down"]["kernel"]
assert not kernel.is_fully_addressable and kernel.addressable_shards[0].data.size * 2 == kernel.size
save_model(Path(sys.argv[4]), loaded.config.model, loaded.params, loaded.tokenizer, source=loaded.config.values)
jax.experimental.multihost_utils.sync_global_devices("saved")
"""


def test_two_processes_load_their_halves_and_save_the_whole(reference, source, tmp_path):
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**values, "tune_type_llm": "full"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    program = PROCESS.replace("import jax\n", "import jax, jax.experimental.multihost_utils\n", 1)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, address, str(number), str(source), str(tmp_path / "ours")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    started = time.monotonic()
    for process in processes:
        _, err = process.communicate(timeout=max(1, 120 - (time.monotonic() - started)))
        assert process.returncode == 0, err[-3000:]
    found = {}
    for path in (tmp_path / "ours").glob("*.safetensors"):
        found |= load_file(path)
    expected = released_tensors(reference)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)
    kept = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert kept["tune_type_llm"] == "full", "what the config that it began from says beside"
