"""How the model is computed: precision, what is kept for the backward pass, which attention. Not what it computes."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh

from mufun_jax.config import Remat

DType = jnp.dtype | type
Kernel = Literal["xla", "blocks", "splash", "cudnn"]

_KERNELS: dict[str, Kernel] = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}

# What a layer names for the policies below.
LAYER_INPUT = "layer_input"
ATTENTION_OUT = "attention_out"


@dataclass(frozen=True)
class Compute:
    """`dtype` is what matrix products run in.

    `remat`: what the backward pass finds of the forward pass. "none": everything is kept; "layer": each layer's input,
    the rest is recomputed; "save_attention": its attention's output too, so that attention is not computed twice;
    "save_dots": what each projection gives as well, so that only what lies between them is computed twice;
    "offload": as "layer", and the inputs wait in the host's memory.
    `kernel`: who computes attention. "splash": Pallas on a TPU; "cudnn": a GPU; "xla": anything;
    "blocks": anything, in parts that stay in a CPU's cache, without gradients.
    `ring`: where the sequence is split, keys and values go round a ring instead of being gathered.
    `scan_layers`: the decoder's layers are a scan over parameters and caches that are stacked. Otherwise each layer has
    arrays of its own: of a stack XLA's CPU backend copies each layer's part before it multiplies it.
    """

    dtype: DType = jnp.float32
    remat: Remat = "none"
    kernel: Kernel = "xla"
    ring: bool = False
    scan_layers: bool = True


def kernel_for(platform: str) -> Kernel:
    """Who computes attention on devices of a platform, "tpu", "gpu" or "cpu"."""
    return _KERNELS.get(platform, "xla")


def compute_on(mesh: Mesh, compute: Compute) -> Compute:
    """How the devices of a mesh answer questions best."""
    if mesh.size == 1 and mesh.devices.flat[0].platform == "cpu":
        return replace(compute, kernel="blocks", scan_layers=False)
    return compute


def rematerialized(layer: type[nn.Module], remat: Remat) -> type[nn.Module]:
    """A layer under a policy of `Compute.remat`, for use inside a scan."""
    policies = jax.checkpoint_policies
    attention_out = policies.save_only_these_names(ATTENTION_OUT)
    policy: dict[Remat, Any] = {
        "layer": policies.nothing_saveable,
        "save_attention": policies.save_from_both_policies(_is_kernel, attention_out),
        "save_dots": policies.save_from_both_policies(_is_projection_or_kernel, attention_out),
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[LAYER_INPUT],
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }
    return layer if remat == "none" else nn.remat(layer, prevent_cse=False, policy=policy[remat])


def _is_kernel(primitive: Any, *_, **__) -> bool:
    """cuDNN's attention, which names no output of its own."""
    return primitive.name.startswith("dot_product_attention_fwd")


def _is_projection_or_kernel(primitive: Any, *arguments, **options) -> bool:
    """Products without batch dimensions: all projections, and none of attention's own."""
    without_batch = jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *arguments, **options)
    return bool(without_batch) or _is_kernel(primitive)


def name_layer_input(hidden: jax.Array) -> jax.Array:
    """`hidden`, named for the policies."""
    return checkpoint_name(hidden, LAYER_INPUT)
