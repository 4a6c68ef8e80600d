"""The one two-way table between PyTorch's tensors and our parameter tree.

An entry pairs a tensor of the released checkpoints with (a layer of) a leaf. A linear map is stored by PyTorch as
[out, in] and by us as [in, out], either end split into [heads, head_size] where there are heads:

    q_proj.weight  [N·H, D]  viewed as [N, H, D],  axes in the order (2, 0, 1)  ->  query kernel  [D, N, H]
    o_proj.weight  [D, N·H]  viewed as [D, N, H],  axes in the order (1, 2, 0)  ->  out kernel    [N, H, D]
    conv1.weight   [out, in, 3],                   axes in the order (2, 1, 0)  ->  conv1 kernel  [3, in, out]

Rotary halves are split alike in both, so heads need no permutation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from mufun_jax.config import DecoderConfig, EncoderConfig, ModelConfig
from mufun_jax.errors import CheckpointError, nearest
from mufun_jax.weights.stored_tensor import StoredTensor

# Before the names of each part in a released checkpoint, which calls the audio encoder "vision tower".
RELEASED_PREFIX = {
    "encoder": "vision_tower._vision_tower.",
    "connector": "connector._connector.",
    "decoder": "language_model.",
}
CONVOLUTION_TAPS = 3
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
Axes = tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """One tensor of a part, by its name inside the part, and where its values go."""

    part: str
    name: str
    leaf: tuple[str, ...]  # path in the parameter tree, the part first
    view: Axes  # PyTorch's shape, with heads apart
    order: Axes  # our axis j is the view's axis order[j]
    torch_shape: Axes
    layer: int | None = None  # of a leaf that stacks layers

    @property
    def released_name(self) -> str:
        return RELEASED_PREFIX[self.part] + self.name

    @property
    def shape(self) -> Axes:
        """Of our array, without the axis of layers."""
        return tuple(self.view[axis] for axis in self.order)

    def to_torch(self, ours: np.ndarray) -> np.ndarray:
        """Our values (of one layer) in PyTorch's shape."""
        return ours.transpose(np.argsort(self.order)).reshape(self.torch_shape)

    def read_into(self, values: np.ndarray, stored: StoredTensor, index: tuple[slice, ...]) -> None:
        """Fills `values`, our [index] of this entry, from a file, in the dtype of `values`, reading no other rows."""
        in_torch_order = values.transpose(np.argsort(self.order))
        by_view_axis = dict(zip(self.order, index, strict=True))
        rows, *columns = (by_view_axis[axis].indices(size) for axis, size in enumerate(self.view))
        assert all(step == 1 for _, _, step in (rows, *columns))
        cut = tuple(slice(first, end) for first, end, _ in columns)
        for first, block in stored.viewed(self.view).rows(rows[0], rows[1]).row_blocks():
            in_torch_order[first : first + len(block)] = block[(slice(None), *cut)]


def weight_table(config: ModelConfig) -> tuple[Entry, ...]:
    """Every tensor of a model of these sizes, encoder first, in the order in which files hold them."""
    return (*encoder_table(config.encoder), *_connector(config), *decoder_table(config.decoder))


def tied_head(config: DecoderConfig) -> Entry | None:
    """Some files of a tied decoder also hold the head: the embedding's copy, which has no leaf of its own."""
    if not config.tied_embeddings:
        return None
    return _same("decoder", HEAD, ("embedding",), (config.vocab_size, config.width))


def check_tensors(
    table: Sequence[Entry], stored: Mapping[str, StoredTensor], where: str, head: Entry | None = None
) -> None:
    """Holds the tensors that are there, by their names inside the parts, against the table.

    `stored` is keyed by released name. `head` is the entry of `tied_head`, which may be there or not.

    Raises:
        CheckpointError: names the first tensor that is missing, not known, misshapen, or a head that is not tied.
    """
    known = {entry.released_name: entry for entry in (*table, *([head] if head else []))}
    for name in stored:
        if name not in known:
            raise CheckpointError(f"{where}: does not belong there: the tensor {name}{nearest(name, list(known))}")
    for entry in known.values():
        if entry.released_name not in stored:
            if entry is head:
                continue
            raise CheckpointError(f"{where}: missing: the tensor {entry.released_name} {list(entry.torch_shape)}")
        shape = stored[entry.released_name].shape
        if shape != entry.torch_shape:
            raise CheckpointError(
                f"{where}: {entry.released_name} is {list(shape)}, but {list(entry.torch_shape)} by the config"
            )
    if head and head.released_name in stored:
        _check_tied(stored[head.released_name], stored[RELEASED_PREFIX["decoder"] + EMBEDDING], where)


def _check_tied(head: StoredTensor, embedding: StoredTensor, where: str) -> None:
    blocks = zip(head.flat_blocks(), embedding.flat_blocks(), strict=True)
    if head.dtype != embedding.dtype or any(one.tobytes() != other.tobytes() for one, other in blocks):
        raise CheckpointError(f"{where}: {head.name} differs from {embedding.name}, but the config says they are tied")


# --- the rows of the table ------------------------------------------------------------------------------------------


def _same(part: str, name: str, leaf: tuple[str, ...], shape: Axes) -> Entry:
    return Entry(part, name, (part, *leaf), shape, tuple(range(len(shape))), shape)


def _linear(part: str, name: str, leaf: tuple[str, ...], into: Axes, out: Axes, bias: bool) -> Iterator[Entry]:
    order = (*range(len(out), len(out) + len(into)), *range(len(out)))
    yield Entry(part, f"{name}.weight", (part, *leaf, "kernel"), (*out, *into), order, (prod(out), prod(into)))
    if bias:
        yield Entry(part, f"{name}.bias", (part, *leaf, "bias"), out, tuple(range(len(out))), (prod(out),))


def _layer_norm(part: str, name: str, leaf: tuple[str, ...], width: int) -> Iterator[Entry]:
    yield _same(part, f"{name}.weight", (*leaf, "scale"), (width,))
    yield _same(part, f"{name}.bias", (*leaf, "bias"), (width,))


def encoder_table(config: EncoderConfig) -> Iterator[Entry]:
    """Every tensor of the encoder."""
    part, width = "encoder", config.width
    for name, features in (("conv1", config.mel_bins), ("conv2", width)):
        shape = (width, features, CONVOLUTION_TAPS)
        yield Entry(part, f"{name}.weight", (part, name, "kernel"), shape, (2, 1, 0), shape)
        yield _same(part, f"{name}.bias", (name, "bias"), (width,))
    yield _same(part, "embed_positions.weight", ("positions",), (config.frames, width))
    for number in range(config.layers):
        for entry in _encoder_layer(config):
            yield replace(entry, name=f"layers.{number}.{entry.name}", layer=number)
    yield from _layer_norm(part, "layer_norm", ("norm",), width)


def _encoder_layer(config: EncoderConfig) -> Iterator[Entry]:
    part, width, mlp = "encoder", (config.width,), (config.mlp_width,)
    heads = (config.heads, config.width // config.heads)
    yield from _layer_norm(part, "self_attn_layer_norm", ("layers", "attention_norm"), config.width)
    yield from _linear(part, "self_attn.q_proj", ("layers", "query"), width, heads, bias=True)
    yield from _linear(part, "self_attn.k_proj", ("layers", "key"), width, heads, bias=False)
    yield from _linear(part, "self_attn.v_proj", ("layers", "value"), width, heads, bias=True)
    yield from _linear(part, "self_attn.out_proj", ("layers", "out"), heads, width, bias=True)
    yield from _layer_norm(part, "final_layer_norm", ("layers", "mlp_norm"), config.width)
    yield from _linear(part, "fc1", ("layers", "up"), width, mlp, bias=True)
    yield from _linear(part, "fc2", ("layers", "down"), mlp, width, bias=True)


def _connector(config: ModelConfig) -> Iterator[Entry]:
    features, hidden = (len(config.encoder.taps) * config.encoder.width,), (config.connector_width,)
    yield from _linear("connector", "linear1", ("linear1",), features, hidden, bias=True)
    yield from _linear("connector", "linear2", ("linear2",), hidden, (config.decoder.width,), bias=True)


def decoder_table(config: DecoderConfig) -> Iterator[Entry]:
    """Every tensor of the decoder; a tied head is the embedding."""
    part = "decoder"
    yield _same(part, EMBEDDING, ("embedding",), (config.vocab_size, config.width))
    for number in range(config.layers):
        for entry in _decoder_layer(config):
            yield replace(entry, name=f"model.layers.{number}.{entry.name}", layer=number)
    yield _same(part, "model.norm.weight", ("norm", "scale"), (config.width,))
    if not config.tied_embeddings:
        yield from _linear(
            part, HEAD.removesuffix(".weight"), ("head",), (config.width,), (config.vocab_size,), bias=False
        )


def _decoder_layer(config: DecoderConfig) -> Iterator[Entry]:
    part, width, mlp = "decoder", (config.width,), (config.mlp_width,)
    heads, kv_heads = (config.heads, config.head_size), (config.kv_heads, config.head_size)

    def norm(name: str, leaf: str, size: int) -> Entry:
        return _same(part, f"{name}.weight", ("layers", leaf, "scale"), (size,))

    yield norm("input_layernorm", "attention_norm", config.width)
    yield from _linear(part, "self_attn.q_proj", ("layers", "query"), width, heads, bias=False)
    yield from _linear(part, "self_attn.k_proj", ("layers", "key"), width, kv_heads, bias=False)
    yield from _linear(part, "self_attn.v_proj", ("layers", "value"), width, kv_heads, bias=False)
    yield from _linear(part, "self_attn.o_proj", ("layers", "out"), heads, width, bias=False)
    yield norm("self_attn.q_norm", "query_norm", config.head_size)
    yield norm("self_attn.k_norm", "key_norm", config.head_size)
    yield norm("post_attention_layernorm", "mlp_norm", config.width)
    yield from _linear(part, "mlp.gate_proj", ("layers", "gate"), width, mlp, bias=False)
    yield from _linear(part, "mlp.up_proj", ("layers", "up"), width, mlp, bias=False)
    yield from _linear(part, "mlp.down_proj", ("layers", "down"), mlp, width, bias=False)
