"""From PyTorch's folders and back: every tensor bit for bit, whatever the dtype, the shards and the source."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mufun_jax.convert.from_torch import from_hf, join
from mufun_jax.convert.to_torch import to_hf
from mufun_jax.errors import CheckpointError, ConfigError, UserError
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.text.tokenizer import NANO_TOKENIZER
from mufun_jax.weights.model_folder import load_model, open_model_folder, save_model
from tests.parity.reference_model import ReferenceModel, params_of
from tests.qwen_tokenizer import write_qwen_tokenizer
from tests.released_folder import (
    released_tensors,
    small_model,
    write_qwen3,
    write_released,
    write_stage,
    write_whisper,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def reference() -> ReferenceModel:
    return ReferenceModel(small_model())


@pytest.fixture(scope="module")
def tied_reference() -> ReferenceModel:
    return ReferenceModel(small_model(tied=True), seed=1)


def tensors_in(folder) -> dict[str, torch.Tensor]:
    """As the safetensors library reads them, shard by shard, each held against the index."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
        for name, tensor in load_file(path).items():
            assert index["weight_map"][name] == path.name
            found[name] = tensor
    assert set(found) == set(index["weight_map"])
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    return found


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Names, shapes, dtypes and bits."""
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        bits = torch.int16 if tensor.dtype.itemsize == 2 else torch.int32
        assert torch.equal(found[name].view(bits), tensor.view(bits)), name


def assert_same_tree(one, other) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head", ["untied", "tied", "tied, stored twice"])
def test_from_hf_then_to_hf_gives_back_every_bit(dtype, head, reference, tied_reference, tmp_path):
    model = reference if head == "untied" else tied_reference
    source = write_released(tmp_path / "source", model, DTYPES[dtype], head=head == "tied, stored twice")
    from_hf(source, tmp_path / "ours")
    to_hf(tmp_path / "ours", tmp_path / "back")
    assert_same(tensors_in(tmp_path / "back"), tensors_in(source))
    for name in ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    assert not list((tmp_path / "back").glob("*.py"))
    assert open_model_folder(tmp_path / "back").config.model == model.config


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [False, True])
def test_through_memory_and_back_every_bit(dtype, tied, reference, tied_reference, tmp_path):
    """Loaded into our tree, saved again: the table in both directions."""
    model = tied_reference if tied else reference
    source = write_released(tmp_path / "source", model, DTYPES[dtype])
    loaded = load_model(source, inference_mesh(), dtype)
    save_model(tmp_path / "ours", model.config, loaded.params, loaded.tokenizer)
    assert_same(tensors_in(tmp_path / "ours"), released_tensors(model, DTYPES[dtype]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [False, True])
def test_to_hf_then_from_hf_gives_back_the_tree(dtype, tied, reference, tied_reference, tmp_path):
    model = tied_reference if tied else reference
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), params_of(model))
    tokenizer = load_model(write_released(tmp_path / "source", model), inference_mesh(), "float32").tokenizer
    save_model(tmp_path / "ours", model.config, params, tokenizer)
    to_hf(tmp_path / "ours", tmp_path / "hf")
    from_hf(tmp_path / "hf", tmp_path / "again")
    again = load_model(tmp_path / "again", inference_mesh(), dtype)
    assert again.config.model == model.config
    assert_same_tree(again.params, params)


def test_rounding_on_request(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    from_hf(source, tmp_path / "half", dtype="bfloat16")
    assert_same(tensors_in(tmp_path / "half"), released_tensors(reference, torch.bfloat16))
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    to_hf(tmp_path / "half", tmp_path / "wide", dtype="float32")
    rounded = {name: value.float() for name, value in released_tensors(reference, torch.bfloat16).items()}
    assert_same(tensors_in(tmp_path / "wide"), rounded)


def test_shards_are_no_larger_than_asked(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    from_hf(source, tmp_path / "ours", shard_bytes=20_000)
    files = sorted((tmp_path / "ours").glob("model-*.safetensors"))
    assert len(files) > 4
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    for path in files:
        tensors = load_file(path)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= 20_000 or len(tensors) == 1
    assert_same(tensors_in(tmp_path / "ours"), released_tensors(reference))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_authors_stage_folders(dtype, reference, tmp_path):
    source = write_stage(tmp_path / "source", reference, DTYPES[dtype])
    from_hf(source, tmp_path / "ours")
    assert_same(tensors_in(tmp_path / "ours"), released_tensors(reference, DTYPES[dtype]))
    assert open_model_folder(tmp_path / "ours").config.model == reference.config
    (source / "config.json").unlink()  # the folders' own configs say as much
    from_hf(source, tmp_path / "again")
    assert open_model_folder(tmp_path / "again").config.model == reference.config


@pytest.mark.parametrize("tied", [False, True])
def test_a_whisper_and_a_qwen3_are_joined(tied, reference, tied_reference, tmp_path):
    model = tied_reference if tied else reference
    whisper, qwen3 = write_whisper(tmp_path / "whisper", model), write_qwen3(tmp_path / "qwen3", model)
    written = join(whisper, qwen3, tmp_path / "joined", seed=5)
    found, expected = tensors_in(tmp_path / "joined"), released_tensors(model)
    connector = {name for name in expected if name.startswith("connector.")}
    assert_same(
        {k: v for k, v in found.items() if k not in connector},
        {k: v for k, v in expected.items() if k not in connector},
    )
    assert written.tensors == len(expected)
    weight = found["connector._connector.linear1.weight"]
    assert weight.std().item() == pytest.approx(weight.shape[1] ** -0.5, rel=0.05)
    assert not found["connector._connector.linear1.bias"].any()
    opened = open_model_folder(tmp_path / "joined")
    assert opened.config.model == model.config
    assert [base.parts for base in opened.config.origin.base_models] == [("encoder",), ("decoder",)]
    join(whisper, qwen3, tmp_path / "same", seed=5)
    assert_same(tensors_in(tmp_path / "same"), found)
    join(whisper, qwen3, tmp_path / "other", seed=6)
    assert not torch.equal(tensors_in(tmp_path / "other")["connector._connector.linear1.weight"], weight)


def test_a_pickled_whisper_and_a_given_connector(reference, tmp_path):
    """`--whisper` with pytorch_model.bin, `--connector` with a safetensors file; names as PyTorch modules have them."""
    whisper, qwen3 = write_whisper(tmp_path / "whisper", reference), write_qwen3(tmp_path / "qwen3", reference)
    torch.save(load_file(whisper / "model.safetensors"), whisper / "pytorch_model.bin")
    (whisper / "model.safetensors").unlink()
    prefix = "connector._connector."
    own = {k.removeprefix(prefix): v for k, v in released_tensors(reference).items() if k.startswith(prefix)}
    save_file(own, tmp_path / "connector.safetensors")
    join(whisper, qwen3, tmp_path / "joined", connector=tmp_path / "connector.safetensors")
    assert_same(tensors_in(tmp_path / "joined"), released_tensors(reference))


def test_sharded_pickles(reference, tmp_path):
    source = write_stage(tmp_path / "source", reference)
    folder = source / "language_model"
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    names = sorted(tensors)
    weight_map = {}
    for number in (1, 2):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in names[number - 1 :: 2]}, folder / file)
        weight_map |= dict.fromkeys(names[number - 1 :: 2], file)
    (folder / "pytorch_model.bin").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    from_hf(source, tmp_path / "ours")
    assert_same(tensors_in(tmp_path / "ours"), released_tensors(reference))


def test_a_stage_whose_configs_contradict_each_other(reference, tmp_path):
    source = write_stage(tmp_path / "source", reference)
    values = json.loads((source / "language_model" / "config.json").read_text())
    values["rope_parameters"]["rope_theta"] = 5.0
    (source / "language_model" / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"its parts' configs contradict its config.json: rope_theta: 5.0 is not"):
        from_hf(source, tmp_path / "ours")


def test_a_stage_that_lacks_a_part_is_not_completed_from_the_hub(reference, tmp_path, monkeypatch):
    source = write_stage(tmp_path / "source", reference)
    shutil.rmtree(source / "vision_tower")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(CheckpointError, match=r"^source/vision_tower: no encoder here: there is no such folder"):
        from_hf("source", tmp_path / "ours")


@pytest.mark.parametrize(
    "name", ["generation_config.json", "config.json", "vocab.json", "model-00001-of-00002.safetensors", "README.md"]
)
def test_a_link_out_of_the_folder_is_not_followed(reference, tmp_path, name):
    source = write_released(tmp_path / "source", reference)
    (source / name).rename(tmp_path / "elsewhere")
    (source / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=rf"source/{name}: is a link to .*elsewhere, outside the folder"):
        from_hf(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_the_links_of_the_hubs_cache_are_followed(reference, tmp_path):
    """`snapshots/REVISION/NAME` is a link to `blobs/HASH` beside it."""
    cache = tmp_path / "models--Yi3852--MuFun"
    source = write_released(cache / "snapshots" / "abc", reference)
    (cache / "blobs").mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        path.rename(cache / "blobs" / str(number))
        path.symlink_to(f"../../blobs/{number}")
    from_hf(source, tmp_path / "ours")
    assert_same(tensors_in(tmp_path / "ours"), released_tensors(reference))
    assert not any(path.is_symlink() for path in (tmp_path / "ours").iterdir())


def test_a_tokenizer_config_cannot_name_other_files(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    other = write_qwen_tokenizer(tmp_path / "other")
    vocabulary = json.loads((other / "vocab.json").read_text())
    (other / "vocab.json").write_text(json.dumps({f"outside{token}": i for token, i in vocabulary.items()}))
    values = json.loads((source / "tokenizer_config.json").read_text())
    for key in ("vocab", "vocab_file", "merges", "merges_file", "tokenizer_file"):
        values[key] = str(other / ("vocab.json" if "vocab" in key else "merges.txt"))
    (source / "tokenizer_config.json").write_text(json.dumps(values))
    from_hf(source, tmp_path / "ours")
    tokenizer = load_model(tmp_path / "ours", inference_mesh(), "float32").tokenizer
    assert not any("outside" in tokenizer.decode([token]) for token in range(512))


def test_a_token_without_an_embedding(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    values = json.loads((source / "vocab.json").read_text())
    values["never"] = 700
    (source / "vocab.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"the tokenizer has token 70\d, the decoder 515 embeddings"):
        from_hf(source, tmp_path / "ours")


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"model": {"type": "WordPiece", "vocab": {}}},
        {"model": []},
        {"pre_tokenizer": {"type": "Nonsense"}},
    ],
)
def test_a_tokenizer_of_another_kind(reference, tmp_path, change):
    source = write_released(tmp_path / "source", reference)
    values = json.loads((NANO_TOKENIZER / "tokenizer.json").read_text()) | change
    (source / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=r"source.*(no byte-level BPE|its normalizer|cannot be read)"):
        from_hf(source, tmp_path / "ours")


def test_names_cannot_write_on_the_terminal(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"]["a\n\x1b[2J" + "b" * 50_000] = "model-00001-of-00002.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"has no tensor a\\n\\x1b\[2Jbbb") as caught:
        from_hf(source, tmp_path / "ours")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 10_000


def test_taps_for_a_depth_that_nobody_knows(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    values = json.loads((source / "config.json").read_text())
    assert "mufun_jax" not in values
    from_hf(source, tmp_path / "ours", taps=(0, 1, 3, 4))
    assert open_model_folder(tmp_path / "ours").config.model.encoder.taps == (0, 1, 3, 4)
    with pytest.raises(ConfigError, match=r"layer set is \[0, 1, 3, 4\], not \[0, 1, 2, 4\]"):
        from_hf(tmp_path / "ours", tmp_path / "x", taps=(0, 1, 2, 4))


def test_progress_counts_bytes_and_tensors(reference, tmp_path):
    calls = []
    source = write_released(tmp_path / "source", reference)
    written = from_hf(source, tmp_path / "ours", advance=lambda *args: calls.append(args))
    assert calls[0][0] == 0
    assert calls[-1] == (written.nbytes, written.nbytes, f"{written.tensors} of {written.tensors} tensors")
    assert [call[0] for call in calls] == sorted(call[0] for call in calls)
    parts = []
    to_hf(tmp_path / "ours", tmp_path / "parts", layout="transformers", advance=lambda *args: parts.append(args))
    assert [call[0] for call in parts] == sorted(call[0] for call in parts)
    assert parts[-1][:2] == (written.nbytes, written.nbytes)


# --- targets ---------------------------------------------------------------------------------------------------------


def test_a_target_that_is_there_is_kept_unless_told(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    target = tmp_path / "ours"
    from_hf(source, target)
    before = tensors_in(target)
    with pytest.raises(CheckpointError, match=r"is there already; .*--overwrite"):
        from_hf(source, target, dtype="bfloat16")
    assert_same(tensors_in(target), before)
    from_hf(source, target, dtype="bfloat16", overwrite=True)
    assert_same(tensors_in(target), released_tensors(reference, torch.bfloat16))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "source"]


@pytest.mark.parametrize("beside", ["letters.txt", "config.json", "model.safetensors.index.json"])
def test_what_is_no_model_folder_is_never_replaced(reference, tmp_path, beside):
    source = write_released(tmp_path / "source", reference)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / beside).write_text("{}")
    if beside != "config.json":
        (tmp_path / "home" / ".git").mkdir()
    with pytest.raises(CheckpointError, match=r"is no model folder \(.*\), so it is not replaced"):
        from_hf(source, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / beside).read_text() == "{}"
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is no folder"):
        from_hf(source, tmp_path / "file", overwrite=True)


def test_the_old_model_comes_back_if_the_new_one_cannot_take_its_place(reference, tmp_path, monkeypatch):
    source = write_released(tmp_path / "source", reference)
    from_hf(source, tmp_path / "ours")
    before = tensors_in(tmp_path / "ours")
    original = Path.rename

    def failing(self, target):
        if self.name.endswith("partial"):
            raise OSError(5, "Input/output error")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(CheckpointError, match="Input/output error"):
        from_hf(source, tmp_path / "ours", dtype="bfloat16", overwrite=True)
    monkeypatch.undo()
    assert_same(tensors_in(tmp_path / "ours"), before)
    # Killed between the two renames: the old one lies aside, and the next run finds it.
    (tmp_path / "ours").rename(tmp_path / ".ours.mufun-replaced")
    with pytest.raises(CheckpointError, match="is there already"):
        from_hf(source, tmp_path / "ours")
    assert_same(tensors_in(tmp_path / "ours"), before)


def test_a_model_folder_is_not_its_own_target(reference, tmp_path):
    from_hf(write_released(tmp_path / "source", reference), tmp_path / "ours")
    with pytest.raises(CheckpointError, match=r"ours: the source .* lies there"):
        to_hf(tmp_path / "ours", tmp_path / "x" / ".." / "ours", dtype="bfloat16", overwrite=True)
    assert_same(tensors_in(tmp_path / "ours"), released_tensors(reference))


def test_a_target_that_is_a_part_of_the_source_is_refused(reference, tmp_path):
    source = write_stage(tmp_path / "source", reference)
    with pytest.raises(CheckpointError, match=r"is no model folder"):
        from_hf(source, source / "language_model", overwrite=True)
    assert (source / "language_model" / "pytorch_model.bin").is_file()


@pytest.mark.parametrize("target", ["outer/source", "outer/source/../source", "outer", "link"])
def test_a_target_that_holds_the_source_is_refused(reference, tmp_path, target):
    source = write_released(tmp_path / "outer" / "source", reference)
    (tmp_path / "outer" / "config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "outer")
    with pytest.raises(UserError, match=r"the source .* lies there|is no folder|is no model folder"):
        from_hf(source, tmp_path / target, overwrite=True)
    assert_same(tensors_in(source), released_tensors(reference))


def test_a_target_beside_or_inside_the_source_is_fine(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    from_hf(source, source / "inside")
    assert_same(tensors_in(source / "inside"), released_tensors(reference))
