"""What must be float32 inside a bfloat16 model, piece by piece: norms, softmax, rotary angles.

Whole-model figures cannot show it: there the rounding of the residual stream outweighs all of it
(`test_whole_model.py`). Inputs and weights here are bfloat16 numbers, so that the truth is exact arithmetic on them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from mufun_jax.model.attention import attention
from mufun_jax.model.layers import LayerNorm, RMSNorm, rotate

ROUNDING = 2.0**-8  # the largest part of a number that rounding it to bfloat16 takes or adds


def bfloat16_numbers(*shape: int, seed: int = 0, scale: float = 1.0, around: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (around + scale * torch.randn(shape, generator=generator)).to(torch.bfloat16)


def to_jax(tensor: torch.Tensor) -> jax.Array:
    return jnp.asarray(tensor.float().numpy(), jnp.bfloat16)


def root_mean_square(x) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


def test_rms_norm_is_transformers_bit_for_bit():
    """Both round twice, after the division and after the scale; only a tie in float32 may fall apart."""
    x, scale = bfloat16_numbers(50, 512, scale=3.0), bfloat16_numbers(512, seed=1, scale=0.3, around=1.0)
    reference = Qwen3RMSNorm(512, eps=1e-6).to(torch.bfloat16)
    with torch.no_grad():
        reference.weight.copy_(scale)
        expected = reference(x).float().numpy()
    ours = np.asarray(
        RMSNorm(1e-6, jnp.bfloat16).apply({"params": {"scale": jnp.asarray(scale.float().numpy())}}, to_jax(x)),
        np.float32,
    )
    assert (ours == expected).mean() > 0.9995
    np.testing.assert_allclose(ours, expected, rtol=2 * ROUNDING)


def test_layer_norm_rounds_once():
    """Exact to its own rounding, also where the mean is many times the deviation."""
    x, scale, bias = (
        bfloat16_numbers(50, 512, around=8.0),
        bfloat16_numbers(512, seed=1, scale=0.3, around=1.0),
        bfloat16_numbers(512, seed=2),
    )
    exact = torch.nn.functional.layer_norm(x.double(), (512,), scale.double(), bias.double(), 1e-5).numpy()
    params = {"scale": jnp.asarray(scale.float().numpy()), "bias": jnp.asarray(bias.float().numpy())}
    ours = LayerNorm(jnp.bfloat16).apply({"params": params}, to_jax(x))
    np.testing.assert_allclose(np.asarray(ours, np.float64), exact, rtol=1.001 * ROUNDING, atol=1e-6)


@pytest.mark.parametrize("head_size", [64, 128], ids=["Whisper's heads", "Qwen3's heads"])
def test_attention_is_as_exact_as_pytorchs(head_size):
    """Logits of a trained model reach 30; rounded to bfloat16 they would be off by 0.1, and weights by a tenth.

    PyTorch's kernel sums and exponentiates in float32 and rounds the weights and the result. Ours must not be
    further from exact arithmetic by more than a tenth.
    """
    queries = bfloat16_numbers(2, 40, 6, head_size, seed=1, scale=2.5)
    keys = bfloat16_numbers(2, 40, 2, head_size, seed=2, scale=2.5)
    values = bfloat16_numbers(2, 40, 2, head_size, seed=3)

    def by_torch(dtype: torch.dtype) -> np.ndarray:
        q, k, v = (x.to(dtype).transpose(1, 2) for x in (queries, keys, values))
        result = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return result.transpose(1, 2).double().numpy()

    exact = by_torch(torch.float64)
    ours = np.asarray(attention(to_jax(queries), to_jax(keys), to_jax(values)), np.float64)
    theirs = by_torch(torch.bfloat16)
    assert root_mean_square(ours - exact) < 1.1 * root_mean_square(theirs - exact)


def test_rotation_rounds_once():
    """At position 4,000 a bfloat16 angle would be off by up to 8 radians."""
    x = bfloat16_numbers(1, 9, 3, 16)
    positions = np.arange(3995, 4004)[None]
    angles = positions[..., None, None] * 1e6 ** (-np.arange(8) / 8)
    x1, x2 = np.split(x.double().numpy(), 2, axis=-1)
    exact = np.concatenate(
        [x1 * np.cos(angles) - x2 * np.sin(angles), x2 * np.cos(angles) + x1 * np.sin(angles)], axis=-1
    )
    ours = np.asarray(rotate(to_jax(x), jnp.asarray(positions), 1e6), np.float64)
    # The angle itself is a float32: off by up to 2.5e-4 radians here.
    np.testing.assert_allclose(ours, exact, rtol=1.001 * ROUNDING, atol=2e-3)
