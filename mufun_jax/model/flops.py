"""FLOPs of the model by formula, for model FLOPs utilisation (MFU).

Counted are matrix products and convolutions, two FLOPs a multiply-add:

    encoder    each window: two convolutions, and in each layer the projections and full attention over all frames
    connector  two projections of each audio token
    decoder    in each layer the projections of each position; attention causal: a query sees itself and what is
               before it, half of all pairs (packing, which hides more, is not deducted)
    head       the vocabulary projection at target positions only

The log-mel spectrogram (under 0.1 % of the encoder of Whisper-large-v3), norms, and softmaxes are not counted.
Training costs three times the forward pass where a part trains: forward, gradients of activations, gradients of
weights. It costs twice where a frozen part only passes gradients down to a part that trains (its attention three
times: both factors of its products are activations), and once where nothing below it trains. What rematerialisation
computes again is not counted: that is hardware utilisation. Convention of Chowdhery et al. 2022 (PaLM, arXiv
2204.02311), appendix B, with causal attention halved.
"""

from dataclasses import dataclass

from mufun_jax.config import ModelConfig, StageConfig

_CONVOLUTION_TAPS = 3


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of all rows of a step (or of a forward pass), by part."""

    encoder: int
    connector: int
    decoder: int
    head: int

    @property
    def total(self) -> int:
        return self.encoder + self.connector + self.decoder + self.head


def forward_flops(model: ModelConfig, rows: int, windows: int, positions: int, targets: int) -> ModelFlops:
    """One forward pass of so many rows, each of so many windows, positions and target positions."""
    decoder = model.decoder
    tokens = windows * model.encoder.tokens_per_window
    features = len(model.encoder.taps) * model.encoder.width
    layer = 2 * positions * _decoder_weights(model) + _causal_attention(model, positions)
    return ModelFlops(
        encoder=rows * windows * _window_flops(model),
        connector=rows * 2 * tokens * model.connector_width * (features + decoder.width),
        decoder=rows * decoder.layers * layer,
        head=rows * 2 * targets * decoder.width * decoder.vocab_size,
    )


def train_flops(model: ModelConfig, stage: StageConfig) -> ModelFlops:
    """One step of a stage, forward and backward."""
    forward = forward_flops(model, stage.rows, stage.windows, stage.positions, stage.targets)
    below_connector = stage.encoder != "frozen"
    below_decoder = below_connector or stage.connector != "frozen"
    decoder = _passes(stage.decoder, gradients_below=below_decoder)
    attention = stage.rows * model.decoder.layers * _causal_attention(model, stage.positions)
    return ModelFlops(
        encoder=forward.encoder * _passes(stage.encoder, gradients_below=False),
        connector=forward.connector * _passes(stage.connector, gradients_below=below_connector),
        decoder=forward.decoder * decoder + attention * (decoder == 2),
        head=forward.head * decoder,
    )


def _passes(training: str, *, gradients_below: bool) -> int:
    """How many times its forward pass a part costs. Adapters leave the weights themselves without gradients."""
    if training == "full":
        return 3
    return 2 if training != "frozen" or gradients_below else 1


def prefill_flops(model: ModelConfig, rows: int, windows: int, positions: int) -> ModelFlops:
    """Prompts of so many positions into the cache, and logits after the last of each."""
    return forward_flops(model, rows, windows, positions, targets=1)


def decode_flops(model: ModelConfig, rows: int, context: int) -> ModelFlops:
    """One more token of each row, which attends to so many positions."""
    decoder = model.decoder
    layer = 2 * _decoder_weights(model) + _attention(context, decoder.heads * decoder.head_size)
    head = 2 * decoder.width * decoder.vocab_size
    return ModelFlops(0, 0, rows * decoder.layers * layer, rows * head)


def _window_flops(model: ModelConfig) -> int:
    encoder = model.encoder
    width, frames = encoder.width, encoder.frames
    mel_frames = 2 * frames
    convolutions = 2 * _CONVOLUTION_TAPS * width * (mel_frames * encoder.mel_bins + frames * width)
    layer = 2 * frames * (4 * width * width + 2 * width * encoder.mlp_width) + _attention(frames**2, width)
    return convolutions + encoder.layers * layer


def _decoder_weights(model: ModelConfig) -> int:
    """Weights of one layer that each position is multiplied with."""
    decoder = model.decoder
    heads = 2 * decoder.heads + 2 * decoder.kv_heads  # queries and out; keys and values
    return decoder.width * (heads * decoder.head_size + 3 * decoder.mlp_width)


def _causal_attention(model: ModelConfig, positions: int) -> int:
    """Of one row in one layer: each query sees itself and what is before it."""
    return _attention(positions * (positions + 1) // 2, model.decoder.heads * model.decoder.head_size)


def _attention(pairs: int, width: int) -> int:
    """Logits and mixing, over so many pairs of query and key."""
    return 4 * pairs * width
