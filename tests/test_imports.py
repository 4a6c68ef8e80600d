"""Which part may import which, read from the source: the order in which data flows."""

import ast
from pathlib import Path

import pytest

import mufun_jax

ROOT = Path(mufun_jax.__file__).parent.parent
PACKAGES = ("mufun_jax", "data_pipelines", "configs")

# What stands on one line may not import one another, but for the pairs in SIDEWAYS.
ORDER = (
    ("axes", "config", "config_file", "errors", "progress"),
    ("audio", "text"),
    ("batch",),
    ("model",),
    ("sharding",),
    ("weights",),
    ("train", "generate"),
    ("evaluate", "convert", "plan", "report", "train_view", "serve"),
    ("experiment",),
    (
        "commands",
        "ask_command",
        "benchmark_command",
        "tag_command",
        "convert_command",
        "experiment_command",
        "checkpoints_command",
        "plan_command",
        "report_command",
        "serve_command",
        "cli",
    ),
)
LEVEL = {part: level for level, parts in enumerate(ORDER) for part in parts}
SIDEWAYS = {
    ("config", "errors"),
    ("config_file", "config"),
    ("config_file", "errors"),
    ("evaluate", "plan"),  # predicted_time.py takes the efficiencies and the shapes of served weights
    ("cli", "commands"),
    ("cli", "ask_command"),
    ("cli", "tag_command"),
    ("cli", "benchmark_command"),
    ("cli", "convert_command"),
    ("cli", "experiment_command"),
    ("experiment_command", "commands"),
    ("convert_command", "commands"),
    ("commands", "ask_command"),
    ("benchmark_command", "ask_command"),
    ("benchmark_command", "commands"),
    ("tag_command", "ask_command"),
    ("serve_command", "ask_command"),
    ("cli", "checkpoints_command"),
    ("cli", "plan_command"),
    ("cli", "report_command"),
    ("cli", "serve_command"),
    ("checkpoints_command", "commands"),
    ("plan_command", "commands"),
    ("report_command", "commands"),
    ("evaluate", "report"),  # the looks of a page
}
DATA_PIPELINES_MAY = {"audio", "text", "batch", "config", "config_file", "errors"}
MAY_IMPORT_DATA_PIPELINES = {"train", "evaluate", "commands", "benchmark_command", "experiment_command", "cli"}
SCORES_ONLY = {"music21", "pretty_midi", "tinysoundfont"}
NOWHERE = {"torch", "librosa", "tensorflow", "tensorflow_datasets"}


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Dotted names of all that a file imports, inside functions and under TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    """`model` for mufun_jax/model/layers.py, `config` for mufun_jax/config.py."""
    return path.relative_to(ROOT / "mufun_jax").parts[0].removesuffix(".py")


def mufun_parts(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("mufun_jax.")}


LIBRARY = [path for path in sources() if ROOT / "mufun_jax" in path.parents and part_of(path) != "__init__"]


def test_every_part_has_its_place():
    assert {part_of(path) for path in LIBRARY} == set(LEVEL)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_data(path):
    part, names = part_of(path), imports_of(path)
    for other in mufun_parts(names) - {part}:
        if other in LEVEL:
            assert LEVEL[other] < LEVEL[part] or (part, other) in SIDEWAYS, f"{part} imports {other}"
        else:
            assert (part, other) == ("cli", "__version__") or other == "MuFun", f"{part} imports mufun_jax.{other}"
    if any(name.split(".")[0] == "data_pipelines" for name in names):
        assert part in MAY_IMPORT_DATA_PIPELINES


def test_the_data_pipelines_know_nothing_of_the_model():
    for path in (ROOT / "data_pipelines").rglob("*.py"):
        assert mufun_parts(imports_of(path)) <= DATA_PIPELINES_MAY, path


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_of_others(path):
    libraries = {name.split(".")[0] for name in imports_of(path)}
    assert not libraries & NOWHERE
    if not (path.parent.name == "data_pipelines" and path.name.startswith("score_")):
        assert not libraries & SCORES_ONLY


def test_the_package_itself_imports_only_the_model_class():
    assert imports_of(ROOT / "mufun_jax" / "__init__.py") <= {"typing.TYPE_CHECKING", "mufun_jax.generate.chat.MuFun"}
