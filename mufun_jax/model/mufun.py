"""MuFun: windows of audio and tokens of text in, next-token logits out."""

from itertools import count as count_from

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from mufun_jax import axes
from mufun_jax.audio.log_mel import log_mel_spectrogram
from mufun_jax.batch import Batch
from mufun_jax.config import ModelConfig
from mufun_jax.model import context
from mufun_jax.model.compute import Compute
from mufun_jax.model.connector import Connector
from mufun_jax.model.kv_cache import LayerCaches, Prefix
from mufun_jax.model.placement import axis_size, constrain, mesh_size, on_each_device, spec_of
from mufun_jax.model.qwen3_decoder import Qwen3Decoder
from mufun_jax.model.vocabulary import TokenLosses
from mufun_jax.model.whisper_encoder import WhisperEncoder

_WINDOWS_AT_ONCE = 4  # of the log-mel spectrogram
PARTS = ("encoder", "connector", "decoder")  # the top of the parameter tree


class MuFunModel(nn.Module):
    """Encoder, connector and decoder, and the splice between them."""

    config: ModelConfig
    compute: Compute = Compute()

    def setup(self) -> None:
        config = self.config
        self.encoder = WhisperEncoder(config.encoder, self.compute)
        self.connector = Connector(config.connector_width, config.decoder.width, self.compute.dtype)
        self.decoder = Qwen3Decoder(config.decoder, self.compute)

    def __call__(self, batch: Batch) -> Float[Array, "R T V"]:
        """Logits at the batch's target positions only: most positions are audio and carry no loss."""
        return self.decoder.logits(self.hidden_at_targets(batch))

    def losses(self, batch: Batch) -> TokenLosses:
        """What each target costs, without the logits of all targets together."""
        return self.decoder.losses(self.hidden_at_targets(batch), batch.targets)

    def hidden_at_targets(self, batch: Batch) -> Float[Array, "R T D"]:
        """Final hidden states at the target positions."""
        length, shards = batch.tokens.shape[1], axis_size(context.AXIS)
        order, places = context.zigzag(length, shards), jnp.asarray(context.places(length, shards))
        tokens, audio_slot, positions, segment_ids = (
            constrain(x[:, order], axes.ROWS, axes.POSITIONS)
            for x in (batch.tokens, batch.audio_slot, batch.positions, batch.segment_ids)
        )
        embeddings = self.splice(tokens, audio_slot, self.encode_audio(batch.samples))
        hidden, _ = self.decoder(embeddings, positions, segment_ids)
        at = places[jnp.maximum(batch.target_index, 0)]
        return constrain(jnp.take_along_axis(hidden, at[:, :, None], axis=1), axes.ROWS, axes.TARGETS, None)

    def encode_audio(self, samples: Num[Array, "R W S"], connected: bool = True) -> Float[Array, "R slots D"]:
        """Windows of 16 kHz samples to audio tokens, 10 a second, or to the encoder's features if not `connected`.

        All rows' windows are one encoder batch, spread over all devices. Where they do not share out evenly, rows get
        silent windows more.
        """
        rows, windows, length = samples.shape
        shared = next(count for count in count_from(windows) if rows * count % mesh_size() == 0)
        samples = jnp.pad(samples, ((0, 0), (0, shared - windows), (0, 0)))
        folded = constrain(samples.reshape(rows * shared, length), axes.WINDOWS, None)
        by_window = spec_of(axes.WINDOWS)
        log_mel = on_each_device(self._log_mel, by_window, by_window)(folded)
        features = self.encoder(log_mel)
        audio_tokens = self.connector(features) if connected else features
        per_window, width = audio_tokens.shape[1:]
        audio_tokens = audio_tokens.reshape(rows, shared * per_window, width)[:, : windows * per_window]
        return constrain(audio_tokens, axes.ROWS, None, axes.AUDIO_WIDTH)

    def _log_mel(self, samples: Num[Array, "B S"]) -> Float[Array, "B mel_frames M"]:
        """A few windows at a time: what a spectrogram is made from is ten times its size."""
        bins = self.config.encoder.mel_bins
        one = lambda window: log_mel_spectrogram(window[None], bins)[0]  # noqa: E731
        return jax.lax.map(one, samples, batch_size=_WINDOWS_AT_ONCE)

    def splice(
        self,
        tokens: Int[Array, "R L"],
        audio_slot: Int[Array, "R L"],
        audio_tokens: Float[Array, "R slots D"],
    ) -> Float[Array, "R L D"]:
        """Text embeddings, with audio tokens where `audio_slot` points at one."""
        text = self.decoder.embed(tokens)
        audio = jnp.take_along_axis(audio_tokens, jnp.maximum(audio_slot, 0)[:, :, None], axis=1)
        audio = constrain(constrain(audio, axes.ROWS, None, axes.AUDIO_WIDTH), axes.ROWS, axes.POSITIONS, None)
        return jnp.where((audio_slot >= 0)[:, :, None], audio, text)

    def prefill(
        self,
        tokens: Int[Array, "R L"],
        audio_slot: Int[Array, "R L"],
        samples: Num[Array, "R W S"],
        last: Int[Array, " R"],
        cache: LayerCaches,
    ) -> tuple[Float[Array, "R V"], LayerCaches]:
        """Runs whole prompts (padded at the end) into the cache; logits after each prompt's `last` position.

        Without windows (W = 0) the prompt is text alone.
        """
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
        if samples.shape[1]:
            embeddings = self.splice(tokens, audio_slot, self.encode_audio(samples))
        else:
            embeddings = self.decoder.embed(tokens)
        hidden, filled = self.decoder(embeddings, positions, jnp.ones_like(tokens), cache)
        assert filled is not None
        return self.decoder.logits(jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]), filled

    def append(
        self,
        tokens: Int[Array, "R L"],
        first: Int[Array, " R"],
        cache: LayerCaches,
        prefix: Prefix | None = None,
        at: Int[Array, "R T"] | None = None,
    ) -> tuple[Float[Array, "R T V"], LayerCaches]:
        """Appends text tokens to each row, from its position `first` on.

        Gives the logits after each of them, or after those that `at` counts from 0 in each row.
        """
        positions = first[:, None] + jnp.arange(tokens.shape[1])
        hidden, longer = self.decoder(self.decoder.embed(tokens), positions, None, cache, prefix)
        assert longer is not None
        if at is not None:
            hidden = jnp.take_along_axis(hidden, at[:, :, None], axis=1)
        return self.decoder.logits(hidden), longer
