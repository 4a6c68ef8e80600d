"""Every jaxtyping shape in the library is checked at run time while the tests run."""

from jaxtyping import install_import_hook

# Not `mufun_jax.batch`: a Batch also holds rows without their leading axis, and shardings. Its arrays are checked
# where the model takes them. Not `mufun_jax.evaluate`: its tests put an oracle in the place of a MuFun.
_PACKAGES = ("audio", "text", "model", "sharding", "train", "generate")
install_import_hook(["data_pipelines", *(f"mufun_jax.{package}" for package in _PACKAGES)], "beartype.beartype")
