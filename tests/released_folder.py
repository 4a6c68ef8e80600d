"""Folders as PyTorch writes them, of a small random model: released, the authors' stages, Whisper and Qwen3."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from mufun_jax.config import SAMPLE_RATE, ModelConfig
from mufun_jax.weights.weight_table import RELEASED_PREFIX
from tests.parity.reference_model import ReferenceModel, qwen3_config, whisper_config
from tests.qwen_tokenizer import write_qwen_tokenizer
from tests.tiny import tiny_decoder, tiny_encoder, tiny_model

disable_progress_bar()  # of save_pretrained
VOCABULARY = 515  # a few rows more than the tokenizer has tokens, as in Qwen3


def small_model(*, tied: bool = False, max_windows: int = 13, window_seconds: int = 1) -> ModelConfig:
    """Four encoder layers and four taps, as `blp_4i_2x` wants."""
    encoder = tiny_encoder(layers=4, taps=(0, 1, 2, 4), window_samples=window_seconds * SAMPLE_RATE)
    decoder = tiny_decoder(vocab_size=VOCABULARY, tied_embeddings=tied)
    config = tiny_model(encoder, decoder, max_windows)
    return ModelConfig(encoder, 2 * 4 * encoder.width, config.decoder, max_windows)


def released_tensors(reference: ReferenceModel, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, value in reference.named_parameters():
        part, _, rest = name.partition(".")
        tensors[RELEASED_PREFIX[part] + rest] = value.detach().to(dtype).contiguous().clone()
    return tensors


def write_released(
    folder: Path, reference: ReferenceModel, dtype: torch.dtype = torch.float32, shards: int = 2, head: bool = False
) -> Path:
    """As `MuFun-Instruct` is on the hub, remote code included, which nothing may run.

    `head` adds the head to the files of a tied model, as some of Qwen's have it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = released_tensors(reference, dtype)
    if head:
        tensors["language_model.lm_head.weight"] = tensors["language_model.model.embed_tokens.weight"].clone()
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        own = names[number::shards]
        save_file({name: tensors[name] for name in own}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(released_config(reference.config, dtype)))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 511, "pad_token_id": 509}))
    (folder / "modeling_tinyllava.py").write_text("raise SystemExit('remote code was run')\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nA model.\n")
    write_qwen_tokenizer(folder)
    return folder


def released_config(config: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Nested configs as differences from their defaults, as transformers saves them."""
    text, vision = qwen3_config(config.decoder), whisper_config(config.encoder)
    return {
        "architectures": ["TinyLlavaForConditionalGeneration"],
        "auto_map": {"AutoModelForCausalLM": "modeling_tinyllava.TinyLlavaForConditionalGeneration"},
        "model_type": "tinyllava",
        "connector_type": "blp_4i_2x",
        "hidden_size": config.decoder.width,
        "image_token_index": -200,
        "image_aspect_ratio": "audio",
        "llm_model_name_or_path": "Qwen/Qwen3-8B-Base",
        "vision_model_name_or_path": "openai/whisper-large-v3",
        "pad_token": "<|endoftext|>",
        "tokenizer_model_max_length": 4096,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "text_config": {
            "model_type": "qwen3",
            "rope_theta": config.decoder.rope_theta,
            **{key: value for key, value in text.to_diff_dict().items() if key != "rope_parameters"},
        },
        "vision_config": {"model_type": "whisper", **vision.to_diff_dict()},
    }


def write_stage(folder: Path, reference: ReferenceModel, dtype: torch.dtype = torch.float32) -> Path:
    """As the authors' training saves a stage: three folders with a `pytorch_model.bin` each."""
    parts = {"encoder": "vision_tower", "connector": "connector", "decoder": "language_model"}
    for part, name in parts.items():
        (folder / name).mkdir(parents=True)
        prefix = "_connector." if part == "connector" else ""
        own = {
            prefix + key.partition(".")[2]: value.detach().to(dtype).clone()
            for key, value in reference.named_parameters()
            if key.startswith(f"{part}.")
        }
        torch.save(own, folder / name / "pytorch_model.bin")
    qwen3_config(reference.config.decoder).save_pretrained(folder / "language_model")
    whisper_config(reference.config.encoder).save_pretrained(folder / "vision_tower")
    (folder / "config.json").write_text(json.dumps(released_config(reference.config, dtype)))
    write_qwen_tokenizer(folder)
    return folder


def write_whisper(folder: Path, reference: ReferenceModel) -> Path:
    """A whole Whisper, decoder included, as it is on the hub."""
    encoder = reference.config.encoder
    config: WhisperConfig = whisper_config(encoder)
    config.vocab_size, config.decoder_layers, config.decoder_attention_heads, config.decoder_ffn_dim = 60, 1, 2, 16
    config.pad_token_id = config.bos_token_id = config.eos_token_id = config.decoder_start_token_id = 50
    whisper = WhisperForConditionalGeneration(config)
    whisper.get_encoder().load_state_dict(reference.encoder.state_dict())
    whisper.save_pretrained(folder)
    return folder


def write_qwen3(folder: Path, reference: ReferenceModel) -> Path:
    """A Qwen3 with its tokenizer."""
    reference.decoder.save_pretrained(folder)
    write_qwen_tokenizer(folder)
    return folder
