"""The axis legend: the letters of shapes and einsums, and the logical names that sharding rules speak of.

Letters in shapes and einsums:

    R  rows of a batch                     L  positions of a row (tokens, text or audio)
    W  windows of audio in a row           S  samples in a window (16 kHz)
    T  target positions in a row           B  any folded batch axis (rows, or rows x windows)
    F  frames of a window                  M  mel bins
    A  audio tokens of a window            D  width of the residual stream
    N  query heads                         K  key/value heads
    H  head size                           V  vocabulary
    C  slots of a key/value cache

Logical axis names: each parameter and each batch field names its axes with these words, and
`mufun_jax.sharding.rules` says which mesh axis each word is split over.
"""

# Axes of the batch.
ROWS = "rows"
POSITIONS = "positions"
WINDOWS = "windows"  # rows x windows folded: the encoder's batch
TARGETS = "targets"

# Widths of what is looked up: a table that is split by its width gives each device its part of all rows' vectors.
LOOKUP_ROWS = "lookup_rows"
LOOKUP_WIDTH = "lookup_width"  # of text embeddings
AUDIO_WIDTH = "audio_width"  # of audio tokens

# Axes of parameters.
LAYERS = "layers"
VOCAB = "vocab"
EMBED = "embed"
MLP = "mlp"
HEADS = "heads"
KV_HEADS = "kv_heads"
HEAD_SIZE = "head_size"
KERNEL = "kernel"  # taps of a convolution
MEL = "mel"
FRAMES = "frames"
FEATURES = "features"  # the concatenated tapped layers
NORM = "norm"
RANK = "rank"  # of a low-rank adapter

# The four axes of the device mesh, slowest network first.
MESH_AXES = ("data", "fsdp", "tensor", "context")
