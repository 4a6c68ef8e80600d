"""What the chips of a host need, predicted from the sizes of the 8 B model.

The decoder's matmuls take `DECODER_FLOPS` a row of 4,096 positions,
taken as proportional to positions. The encoder's take, forward, per window of F frames, width w and MLP width m,

    layers * (2 F (4 w^2 + 2 w m) + 4 F^2 w) + 2 * 2F * 3 mel_bins w + 2 F * 3 w^2

and twice that backward. A chip reaches `MFU` of its peak: a step takes FLOPs / (PEAK_FLOPS * MFU) seconds.
"""

from mufun_jax.config import EncoderConfig
from mufun_jax.model.presets import preset

HOST_CORES, HOST_CHIPS = 112, 4  # of a v5p host
PEAK_FLOPS, MFU = 459e12, 0.5  # of a v5p chip, bfloat16; the share that public runs of 8 B models reach
DECODER_FLOPS, DECODER_POSITIONS = 2.28e14, 4096  # forward and backward of one row, rematerialised, without attention


def encoder_flops(encoder: EncoderConfig) -> float:
    """Forward, of one window."""
    F, w, m = encoder.frames, encoder.width, encoder.mlp_width
    layer = 2 * F * (4 * w**2 + 2 * w * m) + 4 * F**2 * w
    return encoder.layers * layer + 2 * 2 * F * 3 * encoder.mel_bins * w + 2 * F * 3 * w**2


def row_seconds(positions: int, windows: int) -> float:
    """Of one chip's work on one row, predicted."""
    decoder = DECODER_FLOPS * positions / DECODER_POSITIONS
    return (decoder + 3 * windows * encoder_flops(preset("mufun_8b").encoder)) / (PEAK_FLOPS * MFU)


def inputs() -> str:
    """What the prediction was made of."""
    flops = encoder_flops(preset("mufun_8b").encoder)
    return (
        f"decoder {DECODER_FLOPS:.3g} FLOPs a row of {DECODER_POSITIONS:,} positions, 3 x {flops:.3g} a window; "
        f"{HOST_CHIPS} chips of {PEAK_FLOPS / 1e12:.0f} TFLOP/s at {MFU:.0%}, {HOST_CORES} cores"
    )
