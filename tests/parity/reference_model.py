"""MuFun in PyTorch, put together from `transformers` and `torch.nn`, and its parameters as ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mufun_jax.config import SAMPLE_RATE, DecoderConfig, EncoderConfig, ModelConfig
from mufun_jax.weights.params import Params
from mufun_jax.weights.weight_table import weight_table
from tests.tiny import param_shapes


class ReferenceModel(torch.nn.Module):
    """Encoder, connector and decoder with random weights, biases and norms included."""

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(whisper_config(config.encoder))
        self.connector = torch.nn.ModuleDict(
            {
                "linear1": torch.nn.Linear(len(config.encoder.taps) * config.encoder.width, config.connector_width),
                "linear2": torch.nn.Linear(config.connector_width, config.decoder.width),
            }
        )
        self.decoder = Qwen3ForCausalLM(qwen3_config(config.decoder))
        self.eval()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(True)  # the encoder's position table has none in transformers
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(_scaled(name, noise))

    def taps(self, log_mel: torch.Tensor) -> list[torch.Tensor]:
        """The tapped hidden states, [windows, frames, width] each, of features [windows, mel_bins, mel frames]."""
        states = self.encoder(log_mel, output_hidden_states=True).hidden_states
        assert len(states) == self.config.encoder.layers + 1
        return [states[tap] for tap in self.config.encoder.taps]

    def features(self, log_mel: torch.Tensor) -> torch.Tensor:
        """Taps side by side, averaged over frames: [windows, tokens, taps x width]."""
        features = torch.cat(self.taps(log_mel), dim=-1)
        return torch.nn.functional.avg_pool1d(features.mT, self.config.encoder.pool).mT

    def connect(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.connector["linear1"](features)
        return self.connector["linear2"](torch.nn.functional.gelu(hidden, approximate="none"))

    def embeddings(self, pieces: Sequence[Sequence[int]], files: Sequence[np.ndarray]) -> torch.Tensor:
        """Text pieces with the windows of one file (int16) between each two of them: [positions, width]."""
        parts = []
        for number, ids in enumerate(pieces):
            parts.append(self.decoder.get_input_embeddings()(torch.tensor(ids, dtype=torch.long)))
            if number < len(files):
                log_mel = whisper_features(files[number], self.config.encoder.mel_bins)
                parts.append(self.connect(self.features(log_mel.to(parts[0].dtype))).flatten(0, 1))
        return torch.cat(parts)

    def logits(self, pieces: Sequence[Sequence[int]], files: Sequence[np.ndarray]) -> torch.Tensor:
        """Next-token logits at every position of one example: [positions, vocabulary]."""
        return self.decoder(inputs_embeds=self.embeddings(pieces, files)[None]).logits[0]


def whisper_config(config: EncoderConfig) -> WhisperConfig:
    return WhisperConfig(
        num_mel_bins=config.mel_bins,
        d_model=config.width,
        encoder_layers=config.layers,
        encoder_attention_heads=config.heads,
        encoder_ffn_dim=config.mlp_width,
        max_source_positions=config.frames,
    )


def qwen3_config(config: DecoderConfig) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        head_dim=config.head_size,
        intermediate_size=config.mlp_width,
        tie_word_embeddings=config.tied_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        rms_norm_eps=config.norm_epsilon,
    )


def whisper_features(windows: np.ndarray, mel_bins: int) -> torch.Tensor:
    """`WhisperFeatureExtractor` on int16 windows: [windows, mel_bins, frames].

    Its numpy path, which is float64: its PyTorch path is float32 and off by up to 4e-4 (tests/parity/test_log_mel.py).
    """
    extractor = WhisperFeatureExtractor(feature_size=mel_bins, chunk_length=windows.shape[1] // SAMPLE_RATE)
    by_numpy: Any = extractor._np_extract_fbank_features(windows / 32768, "cpu")
    return torch.tensor(by_numpy, dtype=torch.float32)


def params_of(reference: ReferenceModel) -> Params:
    """Our parameter tree with the reference's values."""
    values = {name: value.detach().float().numpy() for name, value in reference.named_parameters()}
    return to_tree(values, reference.config)


def gradients_of(reference: ReferenceModel) -> Params:
    """Our tree of gradients, after a backward pass of the reference. Every parameter has one."""
    gradients = {}
    for name, value in reference.named_parameters():
        assert value.grad is not None, name
        gradients[name] = value.grad.numpy()
    return to_tree(gradients, reference.config)


def to_tree(tensors: Mapping[str, np.ndarray], config: ModelConfig) -> Params:
    """Puts PyTorch's tensors where ours are. Every tensor is used once and every leaf filled, in its shape."""
    left = dict(tensors)
    leaves: dict[tuple[str, ...], Any] = {}
    for entry in weight_table(config):
        ours = left.pop(f"{entry.part}.{entry.name}").reshape(entry.view).transpose(entry.order)
        if entry.layer is None:
            leaves[entry.leaf] = ours
        else:
            leaves.setdefault(entry.leaf, []).append(ours)
    assert not left, f"no leaf for {sorted(left)}"

    def place(path, shape):
        value = np.asarray(leaves.pop(tuple(key.key for key in path)))
        assert value.shape == shape.shape, path
        return jnp.array(value)  # a copy: PyTorch's may change

    tree = jax.tree_util.tree_map_with_path(place, param_shapes(config))
    assert not leaves, f"not in the tree: {sorted(leaves)}"
    return tree


def _scaled(name: str, noise: torch.Tensor) -> torch.Tensor:
    """Weights of variance 1 / fan-in, as the sizes of hidden states are to stay; norms about 1; the rest small."""
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.3 * noise
    if noise.ndim == 1 or "embed" in name:
        return 0.3 * noise
    return noise / noise[0].numel() ** 0.5
