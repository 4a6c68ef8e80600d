"""One train step of the model in PyTorch, on the batch that ours takes, as its users write one."""

from typing import cast

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from mufun_jax.batch import Batch
from mufun_jax.config import HOP_SAMPLES, SAMPLE_RATE, OptimizerConfig
from tests.parity.reference_model import ReferenceModel

N_FFT = 400


class TorchStep:
    """Trains `model` by AdamW, fused, clipped by global norm. Attention is torch's `scaled_dot_product_attention`.

    Nothing is computed that no loss needs: windows that are not used, positions beyond the longest row's last one, and
    logits where there is no target.
    """

    def __init__(self, model: ReferenceModel, optimizer: OptimizerConfig):
        config = model.config
        assert model.encoder.config._attn_implementation == model.decoder.config._attn_implementation == "sdpa"
        self.model = model
        self._clip_norm = optimizer.clip_norm
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            betas=(optimizer.b1, optimizer.b2),
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )
        self._hann = torch.hann_window(N_FFT)
        extractor = WhisperFeatureExtractor(feature_size=config.encoder.mel_bins, sampling_rate=SAMPLE_RATE)
        self._mel_filters = torch.tensor(np.asarray(extractor.mel_filters).T, dtype=torch.float32)

    def __call__(self, batch: Batch, learning_rate: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and norm of the gradient, before it is clipped."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self.loss(*tensors_of(batch))
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        self._optimizer.step()
        return loss.detach(), norm

    def loss(
        self,
        tokens: torch.Tensor,
        is_audio: torch.Tensor,
        positions: torch.Tensor,
        segment_ids: torch.Tensor,
        samples: torch.Tensor,
        target_places: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """The mean cross-entropy of all targets; arguments as of `tensors_of`."""
        model, decoder = self.model, self.model.decoder
        taps = model.encoder(self.log_mel(samples), output_hidden_states=True).hidden_states
        pooled = [taps[tap].unflatten(1, (-1, model.config.encoder.pool)).mean(2) for tap in model.config.encoder.taps]
        audio = model.connect(torch.cat(pooled, dim=-1))
        text = decoder.model.embed_tokens(tokens)
        embeddings = text.masked_scatter(is_audio[..., None], audio)  # windows are used in the order of their positions
        hidden = decoder.model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask={"full_attention": attention_bias(segment_ids)},
            use_cache=False,
        ).last_hidden_state
        logits = decoder.lm_head(hidden.flatten(0, 1)[target_places])
        return torch.nn.functional.cross_entropy(logits, targets)

    def log_mel(self, samples: torch.Tensor) -> torch.Tensor:
        """As `WhisperFeatureExtractor._torch_extract_fbank_features`, by torch.stft: [windows, mel_bins, frames]."""
        waveform = samples / 32768.0
        stft = torch.stft(waveform, N_FFT, HOP_SAMPLES, window=self._hann, return_complex=True)
        magnitudes = (stft[..., :-1].abs() ** 2).contiguous()
        log_mel = (self._mel_filters @ magnitudes).clamp(min=1e-10).log10()
        log_mel = torch.maximum(log_mel, log_mel.amax(dim=(1, 2), keepdim=True) - 8.0)
        return (log_mel + 4.0) / 4.0


def tensors_of(batch: Batch) -> tuple[torch.Tensor, ...]:
    """Tokens, where audio is, positions, segments; used windows; places of targets in the flat rows; the targets."""
    length = int((batch.segment_ids > 0).sum(axis=1).max())
    weighted = batch.target_weights > 0
    rows = np.arange(len(batch.tokens))[:, None]
    arrays = (
        batch.tokens[:, :length],
        batch.audio_slot[:, :length] >= 0,
        batch.positions[:, :length],
        batch.segment_ids[:, :length],
        batch.samples[batch.window_mask],
        (rows * length + batch.target_index)[weighted],
        batch.targets[weighted].astype(np.int64),
    )
    return tuple(torch.from_numpy(cast(np.ndarray, array)) for array in arrays)


def attention_bias(segment_ids: torch.Tensor) -> torch.Tensor:
    """0 where a position may look, minus infinity elsewhere: causal, within an example. [rows, 1, length, length]."""
    length = segment_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    seen = (segment_ids[:, :, None] == segment_ids[:, None, :]) & causal
    return torch.zeros(seen.shape).masked_fill(~seen, -torch.inf)[:, None]
