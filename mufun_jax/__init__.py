"""mufun_jax: MuFun, a model that listens to whole songs and answers in text, in JAX.

>>> from mufun_jax import MuFun
>>> model = MuFun.from_pretrained("runs/demo/checkpoint")
>>> model.chat("What is the key?", "song.mp3")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mufun_jax.generate.chat import MuFun

__all__ = ["MuFun"]


def __getattr__(name: str):
    """Imports the model only when it is asked for: `mufun --help` need not wait for JAX."""
    if name == "MuFun":
        from mufun_jax.generate.chat import MuFun

        return MuFun
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
