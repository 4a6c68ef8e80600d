"""Every way to compute attention gives what the plain products give, forward and backward."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mufun_jax.config import MeshConfig
from mufun_jax.model import context
from mufun_jax.model.attention import attention, full_attention, packed_attention, packed_causal_mask
from mufun_jax.model.compute import Compute
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.sharding.rules import sharding_context
from tests.tiny import relative_error

ROWS, HEADS, KV_HEADS, HEAD_SIZE = 2, 6, 2, 16  # three query heads share a key/value head


def operands(length: int, kv_heads: int = KV_HEADS) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Queries, keys, values, and weights that make a loss of what comes out."""
    rng = np.random.default_rng(length)

    def draw(heads: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal((ROWS, length, heads, HEAD_SIZE)), jnp.float32)

    return draw(HEADS), draw(kv_heads), draw(kv_heads), draw(HEADS)


def packed_segments(length: int) -> jax.Array:
    """Examples whose ends lie on no block's, and padding after them."""
    ends = np.array([[length * 3 // 10, length * 7 // 10, length * 9 // 10], [length // 7, length // 2, length - 1]])
    place = np.arange(length)
    segments = 1 + (place[None, :, None] >= ends[:, None, :]).sum(-1)
    return jnp.asarray(np.where(place < ends[:, 2:], segments, 0), jnp.int32)


def value_and_gradients(attend, queries, keys, values, weights):
    out, pull = jax.vjp(attend, queries, keys, values)
    return out, *pull(weights)


def plain_packed(queries, keys, values, segments):
    return attention(queries, keys, values, packed_causal_mask(segments))


def assert_agree(ours, reference, bound: float = 2e-6) -> None:
    for name, one, other in zip(("out", "d queries", "d keys", "d values"), ours, reference, strict=True):
        assert relative_error(one, other) < bound, name


# 384 is of three blocks of lanes, each its own block at most: with segments, whole blocks are masked.
@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize("compute", [Compute(kernel="splash"), Compute(ring=True), Compute()], ids=str)
def test_packed_attention_agrees_on_one_device_and_two(compute, split, monkeypatch):
    monkeypatch.setattr("mufun_jax.model.splash._DEFAULT_BLOCKS", (128, 128))
    length = 384 if split == 1 else 512
    queries, keys, values, weights = operands(length)
    segments = packed_segments(length)
    reference = value_and_gradients(partial(plain_packed, segments=segments), queries, keys, values, weights)
    order, places = context.zigzag(length, split), context.places(length, split)
    permuted = [x[:, order] for x in (queries, keys, values, weights)]

    def attend(queries, keys, values):
        return packed_attention(queries, keys, values, segments[:, order], compute)

    with sharding_context(make_mesh(MeshConfig(data=2 // split, context=split))):
        results = jax.jit(partial(value_and_gradients, attend))(*permuted)
    assert_agree([x[:, places] for x in results], reference)


@pytest.mark.parametrize("frames", [150, 256])
def test_splash_over_all_frames_agrees(frames):
    """150 frames are padded to 256, which are two blocks of lanes; nobody sees the padding."""
    queries, keys, values, weights = operands(frames, HEADS)
    reference = value_and_gradients(attention, queries, keys, values, weights)
    attend = partial(full_attention, compute=Compute(kernel="splash"))
    with sharding_context(make_mesh(MeshConfig(data=2))):
        assert_agree(jax.jit(partial(value_and_gradients, attend))(queries, keys, values, weights), reference)


def test_splash_without_a_mesh_agrees():
    queries, keys, values, weights = operands(128)
    segments = packed_segments(128)
    attend = partial(packed_attention, segment_ids=segments, compute=Compute(kernel="splash"))
    reference = value_and_gradients(partial(plain_packed, segments=segments), queries, keys, values, weights)
    assert_agree(jax.jit(partial(value_and_gradients, attend))(queries, keys, values, weights), reference)


@pytest.mark.parametrize("length", [1, 100, 256, 600])  # within a block, one, two and a part of one
def test_attention_of_one_example_in_blocks_agrees(length):
    queries, keys, values, _ = operands(length)
    one = jnp.ones((ROWS, length), jnp.int32)
    ours = packed_attention(queries, keys, values, one, Compute(), one_example=True)
    assert relative_error(ours, plain_packed(queries, keys, values, one)) < 1e-6


@pytest.mark.parametrize("at_once", [1, 5 * 100**2])  # heads one by one, and five at a time of eight or so
def test_attention_of_some_heads_at_a_time_agrees(monkeypatch, at_once):
    queries, keys, values, _ = operands(100)
    keys, values = (jnp.repeat(x, queries.shape[2] // x.shape[2], axis=2) for x in (keys, values))
    monkeypatch.setattr("mufun_jax.model.attention._CACHED_LOGITS", at_once)
    ours = full_attention(queries, keys, values, Compute(kernel="blocks"))
    assert relative_error(ours, attention(queries, keys, values)) < 1e-6


def test_a_packed_example_sees_nothing_of_another():
    queries, keys, values, _ = operands(64)
    segments = jnp.broadcast_to(jnp.where(jnp.arange(64) < 25, 1, 2), (ROWS, 64))
    together = packed_attention(queries, keys, values, segments, Compute())
    alone = packed_attention(queries[:, 25:], keys[:, 25:], values[:, 25:], segments[:, 25:], Compute())
    assert relative_error(together[:, 25:], alone) < 1e-6


@pytest.mark.parametrize(("length", "shards"), [(8, 2), (48, 4), (64, 8), (10, 1)])
def test_zigzag_is_a_balanced_order_and_places_inverts_it(length, shards):
    order, places = context.zigzag(length, shards), context.places(length, shards)
    assert sorted(order) == list(range(length))
    np.testing.assert_array_equal(order[places], np.arange(length))
    np.testing.assert_array_equal(places[order], np.arange(length))
    seen = (order + 1).reshape(shards, -1).sum(axis=1)  # keys that the queries of each device see
    assert len(set(seen.tolist())) == 1


def test_the_order_of_two_devices():
    assert context.zigzag(8, 2).tolist() == [0, 1, 6, 7, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="10 positions do not divide into 2 x 2 chunks"):
        context.zigzag(10, 2)
