"""The container's recipe: three targets, each with its own jax, nothing that is not there, no root and no secret."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "launch" / "Dockerfile").read_text()
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
INSTRUCTIONS = ("FROM", "ENV", "RUN", "WORKDIR", "COPY", "ARG", "USER", "CMD")


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each target, those of the target that it builds on first."""
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#")))
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in filter(None, joined.splitlines()):
        instruction, rest = line.split(maxsplit=1)
        assert instruction in INSTRUCTIONS, line
        if instruction == "FROM":
            parent, word, name = rest.split()
            assert word == "AS"
            found[name] = list(found.get(parent, [("FROM", parent)]))
        else:
            found[name].append((instruction, rest))
    return found


def words(stage: str, instruction: str) -> list[str]:
    return [rest for each, rest in stages()[stage] if each == instruction]


def test_the_targets():
    assert set(stages()) == {"base", "cpu", "tpu", "cuda"}


@pytest.mark.parametrize("target", ["cpu", "tpu", "cuda"])
def test_a_target_installs_what_is_pinned_and_ends_as_a_user(target):
    assert words(target, "FROM") == ["python:3.12-slim"]
    (install,) = [line for line in words(target, "RUN") if "pip install" in line]
    assert "--constraint constraints.txt" in install
    extras = re.search(r"\.\[([\w,]+)\]", install)
    assert extras
    assert set(extras[1].split(",")) == {"prepare", *({target} - {"cpu"})}
    assert set(extras[1].split(",")) <= set(EXTRAS)
    assert "ARG RUN_AS=mufun" in TEXT
    assert any("useradd" in line and line.endswith(" mufun") for line in words(target, "RUN"))
    last = [instruction for instruction, _ in stages()[target]][-2:]
    assert last == ["USER", "CMD"]
    assert words(target, "USER") == ["${RUN_AS}"]


def test_each_has_its_own_jax():
    assert [re.split(">=", name)[0] for name in EXTRAS["tpu"]] == ["jax[tpu]"]
    assert [re.split(">=", name)[0] for name in EXTRAS["cuda"]] == ["jax[cuda13]"]


def test_all_that_is_copied_is_there_and_let_through():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored, "all but what is named"
    let_through = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for line in words("base", "COPY") for source in shlex.split(line)[:-1]}
    assert copied == let_through
    assert all((ROOT / source).exists() for source in copied)
    packages = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file() and path.name != "tests"}
    assert packages <= copied
    assert not re.search("token|secret|password|credential", TEXT, flags=re.IGNORECASE)
