"""What a newcomer types: the targets exist, `setup` is what the others build on, and CI calls them."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()


def test_every_target_installs_what_it_needs():
    needs = {
        target: needed.split() for target, needed in re.findall(r"^([a-z-]+): ([^\n=]+)$", MAKEFILE, flags=re.MULTILINE)
    }
    assert needs["demo"] == ["setup"]
    for target in ("lint", "test", "test-slow", "bench"):
        assert "setup-test" in needs[target]
    assert "browser" in needs["test"]
    assert ".venv/setup-test.stamp: .venv/setup.stamp" in MAKEFILE


def test_ci_runs_lint_and_tests():
    calls = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    assert calls == ["lint", "test", "test-slow"]


def test_everything_installed_is_pinned_and_no_index_is_named():
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in constraints()}
    project = (ROOT / "pyproject.toml").read_text()
    names = "dependencies|score|prepare|report|serve|metrics|datasets|notebooks|test"
    lists = re.findall(rf"^(?:{names}) = \[(.*?)\]$", project, flags=re.MULTILINE | re.DOTALL)
    wanted = {
        re.split(r"[\[>=]", name)[0].lower().replace("_", "-") for name in re.findall(r'"([^"]+)"', "".join(lists))
    }
    assert len(wanted) > 15
    assert wanted <= pinned, wanted - pinned
    for text in (MAKEFILE, project, "\n".join(constraints())):
        assert "://" not in text.replace("https://github.com", "")


def constraints() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
