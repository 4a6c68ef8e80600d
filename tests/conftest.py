"""Every jaxtyping shape in the library is checked at run time while the tests run."""

import sys
import tempfile

import jax
import pytest
from jaxtyping import install_import_hook

# Not `mufun_jax.batch`: a Batch also holds rows without their leading axis, and shardings. Its arrays are checked
# where the model takes them. Not `mufun_jax.evaluate`: its tests put an oracle in the place of a MuFun.
_PACKAGES = ("audio", "text", "model", "sharding", "weights", "train", "generate", "convert", "plan", "report")
install_import_hook(["data_pipelines", *(f"mufun_jax.{package}" for package in _PACKAGES)], "beartype.beartype")

from mufun_jax.config import MeshConfig  # noqa: E402  after the hook
from mufun_jax.sharding.mesh import simulate_devices  # noqa: E402

# One compilation serves all tests of a session that need the same program.
jax.config.update("jax_compilation_cache_dir", tempfile.mkdtemp(prefix="mufun-test-programs-"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
simulate_devices(MeshConfig(data=2, simulated_devices=2))

# Each file is the work of one process: those that take longest begin first, lest one of them is left at the end.
_LONGEST = (
    "test_readme.py",
    "test_demo.py",
    "test_kills.py",
    "test_fits.py",
    "test_pods.py",
    "test_steps.py",
    "test_processes.py",
)


def pytest_collection_modifyitems(items):
    rank = {name: place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory):
    """Of `write_tiny_corpus`, for all to read: a test that changes it writes its own."""
    from tests.train.tiny_run import write_tiny_corpus

    return write_tiny_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """A model folder with random weights; it hears 4 s, in windows of 1 s."""
    from mufun_jax.text.tokenizer import load_tokenizer
    from mufun_jax.weights.model_folder import save_model
    from tests.tiny import SMALLEST, random_params

    folder = tmp_path_factory.mktemp("model") / "checkpoint"
    save_model(folder, SMALLEST, random_params(SMALLEST), load_tokenizer("nano"))
    return folder


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs `mufun ARGUMENTS` in this process; gives exit code, standard output and standard error."""
    from mufun_jax import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mufun", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
            raise SystemExit(0)
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return call
