"""Digests of arrays: the formula in numpy, the same under any sharding, and another for any change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mufun_jax.config import MeshConfig
from mufun_jax.sharding.mesh import make_mesh
from mufun_jax.train.digest import digest_tree


def mix(h: np.ndarray) -> np.ndarray:
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def digest(values: np.ndarray) -> str:
    bits = values.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[values.dtype.itemsize]).astype(np.uint32).ravel()
    place = np.arange(bits.size, dtype=np.uint32)
    sums = [mix(bits ^ mix(place + np.uint32(seed))).sum(dtype=np.uint32) for seed in (0x9E3779B9, 0x85EBCA6B)]
    return "".join(f"{int(one):08x}" for one in sums)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "int8"])
@pytest.mark.parametrize("shape", [(), (1,), (6, 4), (2, 3, 5, 4)])
def test_it_is_the_formula(dtype, shape):
    values = np.random.default_rng(0).integers(-100, 100, shape).astype(jnp.dtype(dtype))
    assert digest_tree({"a": {"b": jnp.asarray(values)}}) == {"a.b": digest(np.asarray(values))}


def test_it_does_not_depend_on_the_sharding():
    values = np.random.default_rng(1).standard_normal((8, 6), np.float32)
    mesh = make_mesh(MeshConfig(data=2))
    placed = [
        jax.device_put(values, NamedSharding(mesh, spec))
        for spec in (PartitionSpec("data"), PartitionSpec(None, "data"))
    ]
    assert len({digest_tree([leaf])["0"] for leaf in [jnp.asarray(values), *placed]}) == 1


def test_any_bit_and_any_two_places_change_it():
    values = np.random.default_rng(2).standard_normal(64).astype(np.float32)
    found = {digest_tree([jnp.asarray(values)])["0"]}
    for place in range(64):
        for bit in range(0, 32, 5):
            changed = values.copy()
            changed.view(np.uint32)[place] ^= np.uint32(1 << bit)
            found.add(digest_tree([jnp.asarray(changed)])["0"])
    for place in range(63):
        changed = values.copy()
        changed[[place, place + 1]] = changed[[place + 1, place]]
        found.add(digest_tree([jnp.asarray(changed)])["0"])
    assert len(found) == 1 + 64 * 7 + 63
    assert digest_tree([jnp.zeros(4)]) != digest_tree([-jnp.zeros(4)])
