"""Small layers against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from mufun_jax.model.layers import gelu


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_gelu_and_its_gradient(dtype, tolerance):
    x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, -0.0]]).astype(np.float32)
    weight = np.cos(x)
    theirs = torch.tensor(x, dtype=getattr(torch, dtype), requires_grad=True)
    out = torch.nn.functional.gelu(theirs)
    out.backward(torch.tensor(weight, dtype=out.dtype))
    assert theirs.grad is not None

    ours, backward = jax.vjp(gelu, jnp.asarray(x, dtype))
    (gradient,) = backward(jnp.asarray(weight, ours.dtype))
    assert ours.dtype == gradient.dtype == jnp.dtype(dtype)
    for found, wanted in ((ours, out.detach()), (gradient, theirs.grad)):
        wanted = wanted.float().numpy()
        np.testing.assert_allclose(np.asarray(found, np.float32), wanted, rtol=tolerance, atol=tolerance)
