"""Attention: within packed examples (training, prefill), over all frames (encoder), over a cache (decoding).

Each is softmax(Q K^T / sqrt(H)) V, where the N query heads share the K key/value heads in groups of N / K. Who
computes it is `Compute.kernel`; all agree.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int, Num

from mufun_jax import axes
from mufun_jax.model import context, splash
from mufun_jax.model.compute import ATTENTION_OUT, Compute
from mufun_jax.model.head_groups import MASKED, by_kv_head, by_position
from mufun_jax.model.kv_cache import KVCache, Prefix
from mufun_jax.model.placement import axis_size, on_each_device, spec_of

_BLOCK = 256  # queries, and keys
_CACHED_LOGITS = 2**21  # 8 MiB


def packed_attention(
    queries: Float[Array, "B L N H"],
    keys: Float[Array, "B L K H"],
    values: Float[Array, "B L K H"],
    segment_ids: Int[Array, "B L"],
    compute: Compute,
    *,
    one_example: bool = False,
) -> Float[Array, "B L N H"]:
    """Causal, and within one packed example only. Padding (segment 0) sees padding.

    With `one_example`, as in prefill, each row is one example, whose padding may see it, and has no gradients.

    Where the mesh splits positions, they come in the order of `context.zigzag`.
    """
    kernel = None
    if compute.kernel == "splash" and not compute.ring:
        heads = queries.shape[2] // axis_size("tensor")
        kernel = splash.causal_kernel(heads, queries.shape[1], axis_size(context.AXIS))

    def local(queries, keys, values, segment_ids, kernel):
        if compute.ring:
            return context.ring_attention(queries, keys, values, segment_ids)
        keys, values, key_segments = (context.gather_in_order(x) for x in (keys, values, segment_ids))
        if kernel is not None:
            return splash.run_kernel(kernel, queries, keys, values, segment_ids, key_segments)
        if one_example and compute.kernel in ("xla", "blocks") and axis_size(context.AXIS) == 1:
            return _causal_attention(queries, keys, values)
        mask = packed_causal_mask(segment_ids, key_segments, context.local_positions(queries.shape[1]))
        if compute.kernel == "cudnn" and queries.dtype != jnp.float32:
            whole = axis_size(context.AXIS) == 1  # in order, so that cuDNN may leave out what is to come
            return jax.nn.dot_product_attention(
                queries, keys, values, mask=mask, is_causal=whole, implementation="cudnn"
            )
        return attention(queries, keys, values, mask)

    by_head = spec_of(axes.ROWS, axes.POSITIONS, axes.HEADS, None)
    by_kv_head = spec_of(axes.ROWS, axes.POSITIONS, axes.KV_HEADS, None)
    by_position = spec_of(axes.ROWS, axes.POSITIONS)
    kernel_spec = None if kernel is None else splash.kernel_spec(kernel)
    attend = on_each_device(local, (by_head, by_kv_head, by_kv_head, by_position, kernel_spec), by_head)
    return attend(queries, keys, values, segment_ids, kernel)


def full_attention(
    queries: Float[Array, "B F N H"], keys: Float[Array, "B F N H"], values: Float[Array, "B F N H"], compute: Compute
) -> Float[Array, "B F N H"]:
    """Every frame of a window sees every other."""

    def local(queries, keys, values):
        if compute.kernel == "splash":
            return splash.full_attention(queries, keys, values)
        if compute.kernel == "cudnn" and queries.dtype != jnp.float32:
            return jax.nn.dot_product_attention(queries, keys, values, implementation="cudnn")
        if compute.kernel == "blocks":
            return _attention_by_head(queries, keys, values)
        return attention(queries, keys, values)

    spec = spec_of(axes.WINDOWS)
    return on_each_device(local, (spec, spec, spec), spec)(queries, keys, values)


def _attention_by_head(
    queries: Float[Array, "B F N H"], keys: Float[Array, "B F N H"], values: Float[Array, "B F N H"]
) -> Float[Array, "B F N H"]:
    """Attention without a mask, so many heads at a time that their logits stay in a CPU's cache."""
    batch, frames, heads, size = queries.shape

    def of_head(operands: tuple[jax.Array, ...]) -> Float[Array, "F H"]:
        part = _Part.of(*(x[None, None] for x in operands))
        return (part.mixed / part.total).astype(queries.dtype)[0, 0]

    by_head = tuple(x.swapaxes(1, 2).reshape(batch * heads, frames, size) for x in (queries, keys, values))
    at_once = max(1, _CACHED_LOGITS // frames**2)
    mixed = jax.lax.map(of_head, by_head, batch_size=min(at_once, batch * heads))
    return mixed.reshape(batch, heads, frames, size).swapaxes(1, 2)


def _causal_attention(
    queries: Float[Array, "B L N H"], keys: Float[Array, "B L K H"], values: Float[Array, "B L K H"]
) -> Float[Array, "B L N H"]:
    """Causal attention, positions in order, block by block: what is to come is left out, half the work, and logits of
    one block of queries with one of keys are all that exists at once (Dao et al. 2022, arXiv 2205.14135)."""
    batch, length, heads, size = queries.shape
    kv_heads, block = keys.shape[2], min(_BLOCK, length)
    short = [(0, 0), (0, -length % block), (0, 0), (0, 0)]  # keys added come after all queries: none sees them
    queries, keys, values = (jnp.pad(x, short) for x in (queries, keys, values))
    keys, values = keys.swapaxes(1, 2), values.swapaxes(1, 2)
    own = jnp.tile(jnp.tril(jnp.ones((block, block), bool)), (heads // kv_heads, 1))  # of a block with itself

    def attend(number: jax.Array) -> Float[Array, "B block N H"]:
        rows = _by_kv_head(jax.lax.dynamic_slice_in_dim(queries, number * block, block, axis=1), kv_heads)

        def with_block(other: jax.Array, mask: jax.Array | None = None) -> _Part:
            there = (jax.lax.dynamic_slice_in_dim(x, other * block, block, axis=2) for x in (keys, values))
            return _Part.of(rows, *there, mask=mask)

        before = lambda other, so_far: so_far.joined(with_block(other))  # noqa: E731
        part = jax.lax.fori_loop(0, number, before, with_block(number, own[None]))
        return _by_position((part.mixed / part.total).astype(queries.dtype), (batch, block, heads, size))

    blocks = jax.lax.map(attend, jnp.arange(queries.shape[1] // block))
    return jnp.moveaxis(blocks, 0, 1).reshape(batch, -1, heads, size)[:, :length]


@jax.custom_vjp
def attention(
    queries: Float[Array, "B L N H"],
    keys: Float[Array, "B C K H"],
    values: Float[Array, "B C K H"],
    mask: Bool[Array, "B 1 L C"] | None = None,
) -> Float[Array, "B L N H"]:
    """Attention as plain products. `mask` is true where a query may look.

    Logits and softmax are float32 whatever the dtype of the operands.
    Heads come first and the queries of a group side by side, so that each product is one plain batched matrix
    product, and the sum of the exponentials divides the product, not each weight: on a CPU this is three times as
    fast, forward and backward, as einsums in the order of the arguments.
    The backward pass makes the weights once more, from the logarithm of their sum (Dao et al. 2022, arXiv 2205.14135):
    nothing of the size L x C waits for it.
    """
    return _attention_forward(queries, keys, values, mask)[0]


def _attention_forward(queries, keys, values, mask):
    logits = _logits(queries, keys, mask)
    highest = logits.max(-1, keepdims=True)
    weights = jnp.exp(logits - highest)
    total = weights.sum(-1, keepdims=True)
    mixed = _product("BKMC,BCKH->BKMH", weights.astype(values.dtype), values) / total
    out = checkpoint_name(_by_position(mixed.astype(values.dtype), queries.shape), ATTENTION_OUT)
    log_total = checkpoint_name(highest + jnp.log(total), ATTENTION_OUT)
    return out, (queries, keys, values, mask, out, log_total)


def _attention_backward(residuals, gradient):
    queries, keys, values, mask, out, log_total = residuals
    heads = keys.shape[2]
    weights = jnp.exp(_logits(queries, keys, mask) - log_total)
    d_out = _by_kv_head(gradient, heads)
    mean = jnp.sum(d_out.astype(jnp.float32) * _by_kv_head(out, heads).astype(jnp.float32), axis=-1, keepdims=True)
    d_weights = _product("BKMH,BCKH->BKMC", d_out, values)
    d_logits = (weights * (d_weights - mean) * queries.shape[-1] ** -0.5).astype(queries.dtype)
    d_queries = _by_position(_product("BKMC,BCKH->BKMH", d_logits, keys), queries.shape)
    d_keys = _product("BKMC,BKMH->BCKH", d_logits, _by_kv_head(queries, heads))
    d_values = _product("BKMC,BKMH->BCKH", weights.astype(values.dtype), d_out)
    return d_queries.astype(queries.dtype), d_keys.astype(keys.dtype), d_values.astype(values.dtype), None


attention.defvjp(_attention_forward, _attention_backward)


def _logits(queries, keys, mask) -> Float[Array, "B K M C"]:
    # Scaled in float32: 1 / sqrt(128) is no bfloat16 number, and scaled queries would be rounded once more.
    logits = _product("BKMH,BCKH->BKMC", _by_kv_head(queries, keys.shape[2]), keys) * queries.shape[-1] ** -0.5
    if mask is None:
        return logits
    batch, heads, _, length = logits.shape
    apart = logits.reshape(batch, heads, -1, queries.shape[1], length)
    return jnp.where(mask[:, :, None], apart, MASKED).reshape(logits.shape)


def _product(equation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(equation, x, y, preferred_element_type=jnp.float32)


def _by_kv_head(x: Float[Array, "B L N H"], kv_heads: int) -> Float[Array, "B K M H"]:
    """Queries of all heads that share a key, one head after the other: M = N / K x L."""
    return by_kv_head(x, kv_heads).reshape(x.shape[0], kv_heads, -1, x.shape[3])


def _by_position(x: Float[Array, "B K M H"], shape: tuple[int, ...]) -> Float[Array, "B L N H"]:
    """The inverse of `_by_kv_head`."""
    batch, length, heads, size = shape
    return by_position(x.reshape(batch, x.shape[1], heads // x.shape[1], length, size))


def packed_causal_mask(
    segment_ids: Int[Array, "B L"],
    key_segments: Int[Array, "B C"] | None = None,
    positions: Int[Array, " L"] | None = None,
) -> Bool[Array, "B 1 L C"]:
    """Causal, and within one packed example only. Padding (segment 0) sees padding, so no row is empty.

    `positions` are those of the queries in the row, and `key_segments` the segments of all its keys; by default all
    positions in order. segment_ids 1 1 2 2 0 gives

        1 . . . .
        1 1 . . .
        . . 1 . .
        . . 1 1 .
        . . . . 1
    """
    key_segments = segment_ids if key_segments is None else key_segments
    positions = jnp.arange(segment_ids.shape[1]) if positions is None else positions
    same_example = segment_ids[:, :, None] == key_segments[:, None, :]
    causal = jnp.arange(key_segments.shape[1]) <= positions[:, None]
    return (same_example & causal)[:, None]


def cached_attention(
    queries: Float[Array, "B L N H"],
    positions: Int[Array, "B L"],
    cache: KVCache,
    prefix: Prefix | None = None,
) -> Float[Array, "B L N H"]:
    """Each query sees the prefix of its group, and the cache of its row up to its own position, just written.

    The cache's first slot comes after the prefix. All rows of a group look at its prefix in one product. Slots of the
    cache beyond a row's position may hold the padding of a shorter question; they are overwritten before they are seen.
    """
    batch, _, heads, size = queries.shape
    kv_heads = cache.keys.shape[1]
    slots = own_slots(positions, prefix)
    mask = jnp.arange(cache.keys.shape[2]) <= slots[:, :, None]  # B L C
    rows = by_kv_head(queries, kv_heads)  # B K group L H
    part = _Part.of_cache(rows.reshape(batch, kv_heads, -1, size), cache, jnp.tile(mask, (1, heads // kv_heads, 1)))
    if prefix is not None:
        assert isinstance(prefix.cache, KVCache)  # this layer's
        groups = len(prefix.lengths)
        # G K (rows of the group) (heads of the key's group) L H
        together = rows.reshape(groups, batch // groups, kv_heads, -1, size).swapaxes(1, 2)
        seen = jnp.arange(prefix.slots) < prefix.lengths[:, None]  # G P
        of_prefix = _Part.of_cache(together.reshape(groups, kv_heads, -1, size), prefix.cache, seen[:, None])

        def apart(x: jax.Array) -> jax.Array:
            by_row = x.reshape(groups, kv_heads, batch // groups, -1, x.shape[-1]).swapaxes(1, 2)
            return by_row.reshape(batch, kv_heads, -1, x.shape[-1])

        part = part.joined(jax.tree.map(apart, of_prefix))
    return _by_position((part.mixed / part.total).astype(queries.dtype), queries.shape)


def own_slots(positions: Int[Array, "B L"], prefix: Prefix | None) -> Int[Array, "B L"]:
    """Where in a row's own cache its positions stand: after the prefix."""
    if prefix is None:
        return positions
    return positions - jnp.repeat(prefix.lengths, len(positions) // len(prefix.lengths))[:, None]


@flax.struct.dataclass
class _Part:
    """Attention over some of the keys: the values weighed by exp(logit - highest), and the sum of the weights."""

    mixed: Float[Array, "B K M H"]
    total: Float[Array, "B K M 1"]
    highest: Float[Array, "B K M 1"]

    @staticmethod
    def of(
        queries: Float[Array, "B K M H"],
        keys: Num[Array, "B K C H"],
        values: Num[Array, "B K C H"],
        key_scales: Float[Array, "B K C"] | None = None,
        value_scales: Float[Array, "B K C"] | None = None,
        *,
        mask: Bool[Array, "#B #M C"] | None = None,
    ) -> "_Part":
        dtype = queries.dtype
        logits = _product("BKMH,BKCH->BKMC", queries, keys.astype(dtype)) * queries.shape[-1] ** -0.5
        if key_scales is not None:
            logits = logits * key_scales[:, :, None]
        if mask is not None:
            logits = jnp.where(mask[:, None], logits, MASKED)
        highest = logits.max(-1, keepdims=True)
        weights = jnp.exp(logits - highest)
        total = weights.sum(-1, keepdims=True)
        if value_scales is not None:
            weights = weights * value_scales[:, :, None]
        return _Part(_product("BKMC,BKCH->BKMH", weights.astype(dtype), values.astype(dtype)), total, highest)

    @staticmethod
    def of_cache(queries: Float[Array, "B K M H"], cache: KVCache, mask: Bool[Array, "B #M C"]) -> "_Part":
        return _Part.of(queries, cache.keys, cache.values, cache.key_scales, cache.value_scales, mask=mask)

    def joined(self, other: "_Part") -> "_Part":
        """Attention over the keys of both, as in Juravsky et al. 2024, arXiv 2402.05099."""
        highest = jnp.maximum(self.highest, other.highest)
        shrink, shrink_other = jnp.exp(self.highest - highest), jnp.exp(other.highest - highest)
        mixed = self.mixed * shrink + other.mixed * shrink_other
        return _Part(mixed, self.total * shrink + other.total * shrink_other, highest)
