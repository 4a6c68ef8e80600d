"""Compiled programs on the disk: found again by what they are called with, by nothing else, damaged ones not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mufun_jax.generate.programs import KeptPrograms
from mufun_jax.model.kv_cache import KVCache


@partial(jax.jit, static_argnames="times", donate_argnames="cache")
def grow(cache: KVCache, by: np.ndarray, times: int) -> KVCache:
    return KVCache(cache.keys + times * by, cache.values * times)


def arguments(slots: int = 4) -> dict:
    cache = KVCache(jnp.ones((1, 2, slots, 3)), jnp.full((1, 2, slots, 3), 2.0))
    return {"cache": cache, "by": np.float32(0.5)}


@pytest.fixture
def kept(tmp_path) -> KeptPrograms:
    return KeptPrograms(tmp_path, jax.devices()[0])


def test_what_was_compiled_is_read_back_and_computes_the_same(kept):
    assert kept.read(grow, {"times": 3}, arguments()) is None
    kept.compile(grow, {"times": 3}, arguments(), ("cache",))
    program = kept.read(grow, {"times": 3}, arguments())
    assert program is not None
    given = arguments()
    found = program(**given)
    assert isinstance(found, KVCache)
    assert (np.asarray(found.keys) == 2.5).all() and (np.asarray(found.values) == 6).all()
    assert given["cache"].keys.is_deleted()  # donated, as the first time


def test_another_program_is_not_taken_for_it(kept):
    kept.compile(grow, {"times": 3}, arguments(), ("cache",))
    assert kept.read(grow, {"times": 4}, arguments()) is None
    assert kept.read(grow, {"times": 3}, arguments(slots=5)) is None
    assert kept.read(grow, {"times": 3}, {**arguments(), "by": np.int32(1)}) is None


def test_a_damaged_one_is_compiled_again(kept):
    kept.compile(grow, {"times": 3}, arguments(), ("cache",))
    (file,) = kept.folder.iterdir()
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:5000] + b"x" + whole[5001:]):
        file.write_bytes(damaged)
        assert kept.read(grow, {"times": 3}, arguments()) is None
    kept.compile(grow, {"times": 3}, arguments(), ("cache",))
    assert kept.read(grow, {"times": 3}, arguments()) is not None


def test_what_others_may_have_written_is_not_run(kept):
    kept.compile(grow, {"times": 3}, arguments(), ("cache",))
    (file,) = kept.folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o622)
    assert kept.read(grow, {"times": 3}, arguments()) is None
    file.chmod(0o600)
    assert kept.read(grow, {"times": 3}, arguments()) is not None
