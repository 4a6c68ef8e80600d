"""What is written for PyTorch: loaded by transformers, with its config, tokenizer and model card."""

import json

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mufun_jax.convert.from_torch import from_hf, join
from mufun_jax.convert.to_torch import to_hf
from mufun_jax.errors import CheckpointError
from mufun_jax.sharding.mesh import inference_mesh
from mufun_jax.weights.hf_config import BaseModel, Origin, TrainedStage
from mufun_jax.weights.model_folder import load_model, save_model
from tests.convert.test_from_torch import assert_same, tensors_in
from tests.parity.reference_model import ReferenceModel, params_of
from tests.released_folder import released_tensors, small_model, write_released, write_whisper

SCORES = {
    "tasks": {
        "pitch": {
            "n": 264,
            "accuracy": 0.89,
            "interval": [0.85, 0.93],
            "majority": 0.09,
            "no_audio": 0,
            "wrong_audio": 0.1,
        }
    }
}


@pytest.fixture(scope="module", params=["untied", "tied"])
def reference(request) -> ReferenceModel:
    return ReferenceModel(small_model(tied=request.param == "tied"), seed=2)


def loaded(cls, folder, **options):
    model, report = cls.from_pretrained(folder, output_loading_info=True, **options)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[problem], (problem, report[problem])
    return model.eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_transformers_loads_the_parts(reference, tmp_path, dtype):
    source = write_released(tmp_path / "source", reference)
    to_hf(source, tmp_path / "parts", layout="transformers", dtype=dtype)
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == [
        "README.md",
        "connector",
        "qwen3",
        "whisper_encoder",
    ]
    torch_dtype = getattr(torch, dtype)
    encoder = loaded(WhisperEncoder, tmp_path / "parts" / "whisper_encoder", dtype=torch_dtype)
    decoder = loaded(Qwen3ForCausalLM, tmp_path / "parts" / "qwen3", dtype=torch_dtype)
    for module, expected in ((encoder, reference.encoder), (decoder, reference.decoder)):
        ours = {name: value.detach() for name, value in module.named_parameters()}
        assert_same(ours, {name: value.detach().to(torch_dtype) for name, value in expected.named_parameters()})
    assert decoder.config.tie_word_embeddings == reference.config.decoder.tied_embeddings
    if dtype == "float32":
        tokens = torch.arange(20)[None]
        with torch.no_grad():
            assert torch.equal(decoder(tokens).logits, reference.decoder(tokens).logits)
    prefix = "connector._connector."
    connector = {
        k.removeprefix(prefix): v for k, v in released_tensors(reference, torch_dtype).items() if k.startswith(prefix)
    }
    assert_same(tensors_in(tmp_path / "parts" / "connector"), connector)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "parts" / "qwen3")
    assert tokenizer("C major<|im_end|>")["input_ids"][-1] == 511


def test_the_parts_join_again(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    to_hf(source, parts := tmp_path / "parts", layout="transformers")
    join(parts / "whisper_encoder", parts / "qwen3", tmp_path / "joined", connector=parts / "connector")
    assert_same(tensors_in(tmp_path / "joined"), released_tensors(reference))
    assert load_model(tmp_path / "joined", inference_mesh(), "float32").config.model == reference.config


def test_the_released_config_is_what_the_authors_code_reads(reference, tmp_path):
    """Their config class makes a Qwen3Config and a WhisperConfig of the two sections."""
    source = write_released(tmp_path / "source", reference)
    to_hf(source, tmp_path / "back")
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "back"))
    for key in set(before) - {"text_config", "vision_config", "auto_map"}:
        assert after[key] == before[key], key
    assert "auto_map" not in after, "it names code that is not there"
    assert after["vision_hidden_size"] == reference.config.encoder.width, "the authors' connector reads it"
    text, vision = Qwen3Config(**after["text_config"]), WhisperConfig(**after["vision_config"])
    theirs = Qwen3Config(**before["text_config"])
    for key in ("vocab_size", "hidden_size", "head_dim", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings"):
        assert getattr(text, key) == getattr(theirs, key), key
    rope = {"rope_type": "default", "rope_theta": reference.config.decoder.rope_theta}
    assert text.rope_parameters == theirs.rope_parameters == rope
    assert vision.encoder_layers == reference.config.encoder.layers
    assert vision.max_source_positions == reference.config.encoder.frames


def card_of(folder) -> tuple[dict, str]:
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_the_card_of_a_trained_model(reference, tmp_path):
    """Base models, the stages with their mixtures, the scores, and the licence that is known for all it began from."""
    config = reference.config
    tokenizer = load_model(write_released(tmp_path / "source", reference), inference_mesh(), "float32").tokenizer
    bases = (
        BaseModel("openai/whisper-large-v3", ("encoder",), "apache-2.0"),
        BaseModel("Qwen/Qwen3-8B-Base", ("decoder",), "apache-2.0"),
    )
    stages = (
        TrainedStage("warmup", 12, {"transcription": 1.0}, ("connector",)),
        TrainedStage("align1", 1300, {"notes": 3.0, "songs": 1.0}, ("encoder", "connector", "decoder")),
    )
    save_model(tmp_path / "ours", config, params_of(reference), tokenizer, Origin(bases, stages))
    measured = dict(SCORES["tasks"]["pitch"], headline="wer", score=0.25, lower_is_better=True, constant=1.5)
    scores = SCORES | {"metrics": {"lyrics": measured}}
    to_hf(tmp_path / "ours", tmp_path / "hf", scores=scores)
    front, text = card_of(tmp_path / "hf")
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == ["openai/whisper-large-v3", "Qwen/Qwen3-8B-Base"]
    for words in (
        "- encoder: openai/whisper-large-v3",
        "- connector: fresh",
        "the last stage was align1",
        "| align1 | 1,300 | encoder, connector, decoder | notes 75%, songs 25% |",
        "| pitch | 264 | 0.890 | 0.850 to 0.930 | 0.090 | 0.000 | 0.100 |",
        "| lyrics | 264 | wer (lower is better) | 0.250 | 0.850 to 0.930 | 1.500 | 0.000 | 0.100 |",
        "## Licence\n\napache-2.0.",
    ):
        assert words in text, words
    from_hf(tmp_path / "hf", tmp_path / "again")
    to_hf(tmp_path / "again", tmp_path / "hf2", scores=scores)
    assert (tmp_path / "hf2" / "README.md").read_text() == (tmp_path / "hf" / "README.md").read_text()


def test_a_licence_is_never_guessed(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    to_hf(source, tmp_path / "known")
    assert card_of(tmp_path / "known")[0]["license"] == "apache-2.0", "as the source's card says"
    (source / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    to_hf(source, tmp_path / "other")
    assert card_of(tmp_path / "other")[0]["license"] == "cc-by-nc-4.0"
    (source / "README.md").unlink()
    to_hf(source, tmp_path / "unknown")
    front, text = card_of(tmp_path / "unknown")
    assert front["license"] == "unknown"
    assert "Not known: say so with `--license`" in text
    to_hf(source, tmp_path / "said", license="mit")
    assert card_of(tmp_path / "said")[0]["license"] == "mit"
    assert "## Scores" not in text
    assert "not trained by mufun_jax" in text


def test_scores_that_are_none_are_refused(reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    for scores in (
        {},
        {"tasks": {"pitch": {"n": 1}}},
        {"tasks": []},
        {"tasks": {"pitch": SCORES}},
        SCORES | {"metrics": []},
    ):
        with pytest.raises(CheckpointError, match="scores are not those"):
            to_hf(source, tmp_path / "out", scores=scores)
        assert not (tmp_path / "out").exists()


def test_float16_stays_and_is_loaded(reference, tmp_path):
    """Whisper's released weights are float16: kept as they are, and exact in float32."""
    whisper = write_whisper(tmp_path / "whisper", reference)
    source = write_released(tmp_path / "source", reference, torch.float16)
    assert whisper.is_dir()
    from_hf(source, tmp_path / "ours")
    assert_same(tensors_in(tmp_path / "ours"), released_tensors(reference, torch.float16))
    params = load_model(tmp_path / "ours", inference_mesh(), "float32").params
    expected = reference.encoder.conv1.weight.detach().half().float().numpy().transpose(2, 1, 0)
    np.testing.assert_array_equal(np.asarray(params["encoder"]["conv1"]["kernel"]), expected)
