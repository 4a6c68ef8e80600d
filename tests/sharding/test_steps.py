"""One train step is the same however it is taken: on any mesh, in parts, packed or not, with any rematerialisation.

All steps are of one small model on the same sixteen examples; `tests.sharding.one_step` takes them in a process of its
own, with sixteen simulated devices.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16

ROOT = Path(__file__).parent.parent.parent
Step = dict[str, np.ndarray]


def on(mesh: str, *settings: str) -> list[str]:
    """The settings of a mesh, such as `data=2,context=2`, and others."""
    return [*(f"mesh.{axis}" for axis in mesh.split(",")), *settings]


ALL_AXES = "data=2,fsdp=2,tensor=2,context=2"
ADAPTED = ("stages.s.encoder=lora", "stages.s.decoder=lora")
FROZEN = ("stages.s.encoder=frozen", "stages.s.decoder=frozen")
QUICK = {
    "one device": [],
    "all axes": on(ALL_AXES),  # 24 windows on 16 devices: padded to 32
    "context, packed": on("context=4"),
    "ring": on("fsdp=2,context=4", "ring=True"),
    "unpacked": on("data=2,tensor=2", "rows=unpacked"),
    "accumulated": on("fsdp=2,tensor=2", "stages.s.accumulate=4"),
}
MESHES = {
    mesh: on(mesh)
    for mesh in (
        "data=8",
        "fsdp=8",
        "tensor=4",
        "context=8",
        "fsdp=4,tensor=2",
        "data=2,fsdp=2,tensor=2",
        "data=2,fsdp=2,context=2",
    )
}
OTHER_WAYS = {
    "ring, all axes": on(ALL_AXES, "ring=True"),
    "remat none": on("fsdp=2", "stages.s.remat=none"),
    "remat save_attention": on("fsdp=2", "stages.s.remat=save_attention"),
    "remat save_attention, ring": on("fsdp=2,context=2", "stages.s.remat=save_attention", "ring=True"),
    "remat save_dots, all axes": on(ALL_AXES, "stages.s.remat=save_dots"),
    "remat offload": on("fsdp=2", "stages.s.remat=offload"),
}
SLOW = {
    "one device": [],
    **MESHES,
    **OTHER_WAYS,
    "bfloat16": on("fsdp=2", "compute_dtype=bfloat16"),
    "bfloat16 parameters": on("fsdp=2", "compute_dtype=bfloat16", "param_dtype=bfloat16"),
    "frozen": on("data=2,fsdp=2", *FROZEN),
    "frozen, bfloat16": on("fsdp=2,context=2", *FROZEN, "compute_dtype=bfloat16"),
    "adapted": list(ADAPTED),
    "adapted, all axes": on(ALL_AXES, *ADAPTED),
}


def take(cases: dict[str, list[str]], out: Path) -> dict[str, Step]:
    program = [sys.executable, "-m", "tests.sharding.one_step", str(out), "16", json.dumps(cases)]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1800)
    assert result.returncode == 0, result.stderr[-3000:]
    return {name: dict(np.load(out / f"{name}.npz")) for name in cases}


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> dict[str, Step]:
    return take(QUICK, tmp_path_factory.mktemp("quick"))


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> dict[str, Step]:
    return take(SLOW, tmp_path_factory.mktemp("slow"))


def assert_same_step(ours: Step, reference: Step, bound: float = 1e-5) -> None:
    """Loss and gradients, each relative to the largest of its array; accuracy exactly."""
    assert ours.keys() == reference.keys()
    assert ours["token_accuracy"] == reference["token_accuracy"]
    gradients = [name for name in reference if name.startswith("gradient.")]
    for name in ("loss", "gradient_norm", *gradients):
        largest = np.abs(reference[name]).max()
        assert largest > 0, name
        assert np.abs(ours[name] - reference[name]).max() < bound * largest, name


def parts_of(step: Step, prefix: str, part: str) -> Step:
    return {name: array for name, array in step.items() if name.startswith(f"{prefix}.{part}.")}


@pytest.mark.parametrize("way", [name for name in QUICK if name != "one device"])
def test_the_step_is_that_of_one_device(quick, way):
    assert_same_step(quick[way], quick["one device"])


def test_there_is_something_to_agree_on(quick):
    """Every parameter has a gradient, and some targets are the likeliest token."""
    step = quick["one device"]
    assert 0 < step["token_accuracy"] < 1
    assert {name.replace("after.", "gradient.") for name in step if name.startswith("after.")} == {
        name for name in step if name.startswith("gradient.")
    }


@pytest.mark.slow
@pytest.mark.parametrize("way", [*MESHES, *OTHER_WAYS])
def test_the_step_is_that_of_one_device_on_more_meshes(slow, way):
    assert_same_step(slow[way], slow["one device"])


@pytest.mark.slow
def test_parameters_in_bfloat16_take_the_step_of_those_in_float32(slow):
    """Where the model computes in bfloat16, and the optimizer's own are float32."""
    ours, reference = slow["bfloat16 parameters"], slow["bfloat16"]
    assert ours.keys() == reference.keys()
    embedding = "gradient.decoder.embedding"  # summed in float32 in both, but then rounded
    assert np.abs(ours[embedding] - reference[embedding]).max() <= np.abs(reference[embedding]).max() * 2**-8
    norms = ("gradient_norm", "gradient_norm_decoder")  # the embedding's gradient is in them
    for name in reference:
        if name in norms:
            np.testing.assert_allclose(ours[name], reference[name], rtol=2**-16, err_msg=name)
        elif not name.endswith("decoder.embedding"):
            np.testing.assert_array_equal(ours[name], reference[name], name)
    kernel = ours["after.decoder.layers.gate.kernel"]
    assert (kernel.astype(bfloat16).astype(np.float32) != kernel).any(), "what is kept has more digits than bfloat16"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["frozen", "frozen, bfloat16"])
def test_frozen_parts_do_not_change_by_a_bit(slow, way):
    step = slow[way]
    for part in ("encoder", "decoder"):
        assert not parts_of(step, "gradient", part)
        for name, array in parts_of(step, "before", part).items():
            np.testing.assert_array_equal(step[name.replace("before", "after", 1)], array)
    for name, array in parts_of(step, "before", "connector").items():
        assert (step[name.replace("before", "after", 1)] != array).any(), name


@pytest.mark.slow
def test_what_trains_beside_frozen_parts_has_the_gradient_that_it_has_without_them(slow):
    for name, gradient in parts_of(slow["one device"], "gradient", "connector").items():
        assert np.abs(slow["frozen"][name] - gradient).max() < 1e-5 * np.abs(gradient).max(), name


@pytest.mark.slow
def test_adapters_train_alike_on_all_axes(slow):
    assert_same_step(slow["adapted, all axes"], slow["adapted"])
    assert len(parts_of(slow["adapted"], "gradient", "lora")) == 2 * (6 + 7)
