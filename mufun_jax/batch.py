"""Batch: the one contract between data and model. Every shape is fixed for a whole training stage.

R rows, L positions, W windows a row, S samples a window, T targets a row.
A row holds one or several examples, told apart by `segment_ids`:

    tokens      [ A  chat  …  USER:  ░  ░  ░  key  ?  ASSISTANT:  D  major  <|im_end|>  <pad> ]
    audio_slot  [-1   -1  -1    -1   0  1  2   -1 -1          -1 -1     -1          -1     -1 ]
    positions   [ 0    1   2     3   4  5  6    7  8           9 10     11          12      0 ]
    segment_ids [ 1    1   1     1   1  1  1    1  1           1  1      1           1      0 ]
    target_index  [9, 10, 11, -1, …]        (the positions that predict)
    targets       [D, major, <|im_end|>, …] (what they must predict)
    target_set    [1, 1, 1, 0, …]           (which set of the mixture the example is from)
"""

from typing import Any

import flax.struct
from jaxtyping import Bool, Float, Int, Int32

Array = Any  # numpy on the host, jax.Array on the device


@flax.struct.dataclass
class Batch:
    """One training batch. `samples` is int16 in training (halves the transfer), float32 at inference."""

    tokens: Int32[Array, "R L"]  # text ids; anything at audio positions
    audio_slot: Int32[Array, "R L"]  # index into this row's W x A audio tokens, -1 for text
    positions: Int32[Array, "R L"]  # 0..n-1 within each packed example
    segment_ids: Int32[Array, "R L"]  # 0 = padding, then 1, 2, …
    samples: Int[Array, "R W S"] | Float[Array, "R W S"]  # 16 kHz windows, zero-padded
    window_mask: Bool[Array, "R W"]  # false for an unused window
    target_index: Int32[Array, "R T"]  # positions whose next token is a target, -1 unused
    targets: Int32[Array, "R T"]  # that next token
    target_weights: Float[Array, "R T"]  # 0 where unused
    target_set: Int32[Array, "R T"]  # place in the stage's mixture of the set that the example is from; 0 where unused
