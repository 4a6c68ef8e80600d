"""Damaged folders of every kind: a conversion ends with the very tensors that are in the files, or with one line.

Each mutation changes one file of a small folder: flipped bits, cuts, doubled or inserted bytes, and in JSON files
values of other types. A success must give what an independent reader (safetensors, or PyTorch's weights-only one)
finds in the damaged files.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mufun_jax.convert.from_torch import from_hf, join
from mufun_jax.errors import UserError
from mufun_jax.text.tokenizer import TOKENIZER_FILES
from mufun_jax.weights.weight_table import RELEASED_PREFIX
from tests.convert import test_ctranslate2
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import small_model, write_qwen3, write_released, write_stage

MUTATIONS = {"released": 170, "stage": 110, "ctranslate2": 70}
JSON_VALUES = [None, True, -1, 0, 3, 2**70, 1.5, float("inf"), "", "x", "../x", [], [[]], {}, {"a": 1}]


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """One bit; half of the time near the beginning, where headers are."""
    limit = len(data) if rng.random() < 0.5 else min(len(data), 4000)
    changed = bytearray(data)
    changed[rng.integers(limit)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def doubled(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    piece = data[start : start + int(rng.integers(1, 60))]
    return data[:start] + piece + data[start:]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + rng.bytes(8) + data[start + 8 :]


def other_value(data: bytes, rng: np.random.Generator) -> bytes:
    """A JSON object in which one value, somewhere, is replaced, removed or renamed."""
    values = json.loads(data)
    node = values
    while True:
        key = list(node)[rng.integers(len(node))]
        if isinstance(node[key], dict) and node[key] and rng.random() < 0.7:
            node = node[key]
            continue
        break
    choice = rng.integers(len(JSON_VALUES) + 2)
    if choice == len(JSON_VALUES):
        del node[key]
    elif choice == len(JSON_VALUES) + 1:
        node[key + "_"] = node.pop(key)
    else:
        node[key] = JSON_VALUES[choice]
    return json.dumps(values).encode()


def mutate(folder: Path, rng: np.random.Generator) -> str:
    """Changes one of the folder's files, weights and configs more often than others; says what was done."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".json", ".safetensors", ".bin")
    ]
    weights = [3.0 if path.name not in TOKENIZER_FILES else 0.3 for path in files]
    path = files[rng.choice(len(files), p=np.array(weights) / sum(weights))]
    ways = [flip, cut, doubled, noise] + ([other_value] * 4 if path.suffix == ".json" else [flip] * 3)
    way = ways[rng.integers(len(ways))]
    if rng.random() < 0.03:
        path.unlink()
        return f"removed {path.name}"
    path.write_bytes(way(path.read_bytes(), rng))
    return f"{way.__name__} {path.name}"


def released_by_others(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def stage_by_others(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for part, name in {"encoder": "vision_tower", "connector": "connector", "decoder": "language_model"}.items():
        for key, value in torch.load(folder / name / "pytorch_model.bin", weights_only=True).items():
            found[RELEASED_PREFIX[part] + key.removeprefix("_connector.")] = value
    return found


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    return ReferenceModel(small_model())


def campaign(kind: str, pristine: Path, tmp_path: Path, convert, by_others) -> None:
    rng = np.random.default_rng(20 + len(kind))
    outcomes: dict[str, int] = {}
    for number in range(MUTATIONS[kind]):
        source, target = tmp_path / "damaged", tmp_path / "target"
        shutil.copytree(pristine, source)
        done = f"{number}: {mutate(source, rng)}"
        try:
            convert(source, target)
        except UserError as error:
            message = str(error)
            assert "\n" not in message, (done, message)
            assert 0 < len(message) < 1000, (done, message)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged"], done
            outcomes["error"] = outcomes.get("error", 0) + 1
        else:
            found, expected = released_by_others(target), by_others(source)
            assert set(found) >= set(expected), done
            for name, value in expected.items():
                same = found[name].numpy().tobytes() == value.detach().numpy().tobytes()
                assert same and found[name].shape == value.shape, (done, name)
            outcomes["equal"] = outcomes.get("equal", 0) + 1
            shutil.rmtree(target)
        shutil.rmtree(source)
    assert min(outcomes["error"], outcomes["equal"]) > MUTATIONS[kind] // 20, (outcomes, "one-sided: a weak campaign")


def test_released_folders(reference, tmp_path, tmp_path_factory):
    pristine = write_released(tmp_path_factory.mktemp("released") / "model", reference)
    campaign("released", pristine, tmp_path, from_hf, released_by_others)


def test_stage_folders(reference, tmp_path, tmp_path_factory):
    pristine = write_stage(tmp_path_factory.mktemp("stage") / "model", reference)
    campaign("stage", pristine, tmp_path, from_hf, stage_by_others)


def test_ctranslate2_files(reference, tmp_path, tmp_path_factory):
    """Against the numbers where the undamaged file has them: there is no other reader of the format here."""
    pristine = tmp_path_factory.mktemp("ctranslate2")
    variables = test_ctranslate2.variables_of(reference, "float32")
    test_ctranslate2.write(pristine / "model.bin", variables)
    qwen3 = write_qwen3(tmp_path_factory.mktemp("qwen3"), reference)
    original = (pristine / "model.bin").read_bytes()

    def by_others(folder: Path) -> dict[str, torch.Tensor]:
        data = (folder / "model.bin").read_bytes()
        assert len(data) == len(original), "no cut and no doubling is a success"
        name = "encoder/conv1/weight"
        start = original.index(variables[name].tobytes())
        values = np.frombuffer(data[start : start + variables[name].nbytes], np.float32).reshape(variables[name].shape)
        return {f"{RELEASED_PREFIX['encoder']}conv1.weight": torch.tensor(values)}

    campaign("ctranslate2", pristine, tmp_path, lambda source, target: join(source, qwen3, target), by_others)


def test_at_least_300_mutations():
    assert sum(MUTATIONS.values()) >= 300
