"""Attention on a TPU: the Pallas kernel `splash_attention`, whose logits never leave the chip's vector memory.

Kernels see one device's rows, heads and queries. The backward pass is fused: one kernel makes the gradients of
queries, keys and values.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from mufun_jax.model.compute import ATTENTION_OUT
from mufun_jax.model.context import AXIS, zigzag

# Queries and keys a block, by what `device_kind` says of the chip: forward, and backward. A block's logits are float32
# in the vector memory (scoped: 16 MiB by default), so 1,024 x 1,024 is what fits the backward kernel everywhere.
BLOCKS: dict[str, tuple[int, int]] = {
    "TPU v4": (1024, 1024),
    "TPU v5 lite": (1024, 1024),
    "TPU v5": (1024, 1024),
    "TPU v6 lite": (2048, 1024),
    "TPU7x": (2048, 1024),
}
_DEFAULT_BLOCKS = (1024, 1024)
LANES = 128  # every length is a multiple of it


def full_attention(
    queries: Float[Array, "B F N H"], keys: Float[Array, "B F N H"], values: Float[Array, "B F N H"]
) -> Float[Array, "B F N H"]:
    """Every frame sees every frame. 1,500 frames are padded to 1,536, whole lanes."""
    _, frames, heads, size = queries.shape
    padded = -(-frames // LANES) * LANES
    kernel = _full_kernel(heads, padded)
    real = (jnp.arange(padded) < frames).astype(jnp.int32)[None]

    # A window at a time: heads of 64 fill half of the lanes, which makes the kernel's copies twice as large as what is
    # copied. So windows wait with their heads side by side, and nothing else waits for the backward pass.
    @jax.checkpoint
    def one_window(window):
        apart = (x.reshape(1, frames, heads, size) for x in window)
        queries, keys, values = (jnp.pad(x, ((0, 0), (0, padded - frames), (0, 0), (0, 0))) for x in apart)
        out = run_kernel(kernel, queries, keys, values, real, real)
        return out[0, :frames].reshape(frames, heads * size)

    side_by_side = tuple(x.reshape(*x.shape[:2], heads * size) for x in (queries, keys, values))
    return jax.lax.map(one_window, side_by_side).reshape(queries.shape)


def run_kernel(kernel: Any, queries, keys, values, query_segments, key_segments) -> Float[Array, "B L N H"]:
    """A kernel over a batch. Queries are scaled by 1 / sqrt(H) in float32 first."""
    queries = (queries.astype(jnp.float32) * queries.shape[-1] ** -0.5).astype(queries.dtype)
    queries, keys, values = (x.transpose(0, 2, 1, 3) for x in (queries, keys, values))
    segments = _pallas_splash().SegmentIds(query_segments, key_segments)
    out = jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=s))(queries, keys, values, segments)
    return out.transpose(0, 2, 1, 3)


def causal_kernel(heads: int, length: int, shards: int) -> Any:
    """The kernel of causal attention over `length` positions, its queries split in `shards` in zigzag order."""
    mask = _pallas_splash().CausalMask((length, length), shard_count=shards)
    mask.q_sequence = zigzag(length, shards).astype(np.int32)
    return _make(mask, heads, length // shards, length, shards)


def kernel_spec(kernel: Any) -> Any:
    """How a kernel's tables lie on the mesh: each device has those of its queries."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, AXIS)))


def _full_kernel(heads: int, length: int) -> Any:
    return _make(_pallas_splash().FullMask((length, length)), heads, length, length, 1)


def _make(mask: Any, heads: int, queries: int, keys: int, shards: int) -> Any:
    forward, backward = BLOCKS.get(_device_kind(), _DEFAULT_BLOCKS)
    sizes = _pallas_splash().BlockSizes(
        block_q=block(queries, forward),
        block_kv=block(keys, forward),
        block_kv_compute=block(block(keys, forward), 512),
        block_q_dkv=block(queries, backward),
        block_kv_dkv=block(keys, backward),
        block_kv_dkv_compute=block(block(keys, backward), 512),
        use_fused_bwd_kernel=True,
    )
    return _pallas_splash().make_splash_mha(
        _pallas_splash().MultiHeadMask([mask] * heads),
        head_shards=1,
        q_seq_shards=shards,
        block_sizes=sizes,
        residual_checkpoint_name=ATTENTION_OUT,
        interpret=_device_kind() == "cpu",
    )


def block(length: int, largest: int) -> int:
    """The largest whole number of lanes up to `largest` that divides `length`. Raises ValueError where none does."""
    if length % LANES:
        raise ValueError(
            f"{length} positions a device are no multiple of {LANES}, as splash attention needs; "
            f"nearest: {max(1, round(length / LANES)) * LANES}"
        )
    return max(size for size in range(LANES, min(length, largest) + 1, LANES) if length % size == 0)


def _pallas_splash() -> Any:
    """JAX's module, imported only where it is used: that takes long."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    return splash_attention


def _device_kind() -> str:
    """What the mesh's devices call themselves; without a mesh, this machine's."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.devices()[0].device_kind if mesh.empty else mesh.abstract_device.device_kind
