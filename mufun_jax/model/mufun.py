"""MuFun: windows of audio and tokens of text in, next-token logits out."""

import flax.linen as nn
import jax.numpy as jnp
from flax.linen.spmd import with_logical_constraint
from jaxtyping import Array, Float, Int, Num

from mufun_jax import axes
from mufun_jax.audio.log_mel import log_mel_spectrogram
from mufun_jax.batch import Batch
from mufun_jax.config import ModelConfig
from mufun_jax.model.attention import cache_mask, packed_causal_mask
from mufun_jax.model.connector import Connector
from mufun_jax.model.kv_cache import KVCache
from mufun_jax.model.layers import DType
from mufun_jax.model.qwen3_decoder import Qwen3Decoder
from mufun_jax.model.whisper_encoder import WhisperEncoder

PARTS = ("encoder", "connector", "decoder")  # the top of the parameter tree


class MuFunModel(nn.Module):
    """Encoder, connector and decoder, and the splice between them."""

    config: ModelConfig
    dtype: DType = jnp.float32
    rematerialize: bool = False

    def setup(self) -> None:
        config = self.config
        self.encoder = WhisperEncoder(config.encoder, self.dtype, self.rematerialize)
        self.connector = Connector(config.connector_width, config.decoder.width, self.dtype)
        self.decoder = Qwen3Decoder(config.decoder, self.dtype, self.rematerialize)

    def __call__(self, batch: Batch) -> Float[Array, "R T V"]:
        """Logits at the batch's target positions only: most positions are audio and carry no loss."""
        audio_tokens = self.encode_audio(batch.samples)
        embeddings = self.splice(batch.tokens, batch.audio_slot, audio_tokens)
        mask = packed_causal_mask(batch.segment_ids)
        hidden, _ = self.decoder(embeddings, batch.positions, mask)
        at_targets = jnp.take_along_axis(hidden, jnp.maximum(batch.target_index, 0)[:, :, None], axis=1)
        return self.decoder.logits(at_targets)

    def encode_audio(self, samples: Num[Array, "R W S"]) -> Float[Array, "R slots D"]:
        """Windows of 16 kHz samples to audio tokens, 10 a second. All rows' windows are one encoder batch."""
        rows, windows, length = samples.shape
        folded = samples.reshape(rows * windows, length)
        folded = with_logical_constraint(folded, (axes.WINDOWS, None))
        log_mel = log_mel_spectrogram(folded, self.config.encoder.mel_bins)
        audio_tokens = self.connector(self.encoder(log_mel))
        audio_tokens = audio_tokens.reshape(rows, windows * audio_tokens.shape[1], audio_tokens.shape[2])
        return with_logical_constraint(audio_tokens, (axes.ROWS, None, None))

    def splice(
        self,
        tokens: Int[Array, "R L"],
        audio_slot: Int[Array, "R L"],
        audio_tokens: Float[Array, "R slots D"],
    ) -> Float[Array, "R L D"]:
        """Text embeddings, with audio tokens where `audio_slot` points at one."""
        text = self.decoder.embed(tokens)
        audio = jnp.take_along_axis(audio_tokens, jnp.maximum(audio_slot, 0)[:, :, None], axis=1)
        embeddings = jnp.where((audio_slot >= 0)[:, :, None], audio, text)
        return with_logical_constraint(embeddings, (axes.ROWS, axes.POSITIONS, None))

    def prefill(
        self,
        tokens: Int[Array, "R L"],
        audio_slot: Int[Array, "R L"],
        samples: Num[Array, "R W S"],
        last: Int[Array, " R"],
        cache: KVCache,
    ) -> tuple[Float[Array, "R V"], KVCache]:
        """Runs whole prompts (padded at the end) into the cache; logits after each prompt's `last` position.

        Without windows (W = 0) the prompt is text alone.
        """
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        if samples.shape[1]:
            embeddings = self.splice(tokens, audio_slot, self.encode_audio(samples))
        else:
            embeddings = self.decoder.embed(tokens)
        mask = cache_mask(positions, cache.keys.shape[2])
        hidden, filled = self.decoder(embeddings, positions, mask, cache)
        assert filled is not None
        return self.decoder.logits(jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]), filled

    def append(
        self, tokens: Int[Array, "R L"], first: Int[Array, " R"], cache: KVCache
    ) -> tuple[Float[Array, "R L V"], KVCache]:
        """Appends text tokens to each row, from its position `first` on; logits after each of them."""
        positions = first[:, None] + jnp.arange(tokens.shape[1])
        mask = cache_mask(positions, cache.keys.shape[2])
        hidden, longer = self.decoder(self.decoder.embed(tokens), positions, mask, cache)
        assert longer is not None
        return self.decoder.logits(hidden), longer
