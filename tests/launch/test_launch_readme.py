"""launch/README.md: scripts take its commands, files and targets are there, plans are possible, sums are right."""

import re
import shlex
import subprocess
from typing import Any

import pytest

from mufun_jax.config_file import load_run_config
from mufun_jax.plan.plan import Request
from mufun_jax.plan.topology import parse_topology
from tests.launch.fake_cloud import ROOT

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "launch" / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = "".join(BLOCKS).replace("\\\n", "").strip().splitlines()
STEPS = {"short": 12_000 * 512, "long": 4_000 * 256}  # rows


def commands(first: str) -> list[str]:
    found = [command for command in COMMANDS if command.startswith(first)]
    assert found, first
    return found


@pytest.mark.parametrize("command", [*commands("launch/"), *commands("sbatch ")])
def test_a_script_takes_the_command(command):
    words = shlex.split(command)
    at = next(place for place, word in enumerate(words) if word.startswith("launch/"))
    arguments = [word for word in words[at + 1 :] if word != "--dry-run"]
    result = subprocess.run(
        [words[at], "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "mufun" in result.stdout


def test_every_script_is_told_of():
    for path in (ROOT / "launch").iterdir():
        assert f"`{path.name}`" in PAGE or path.name == "README.md", path


def test_every_command_is_of_a_kind_that_is_known():
    known = {"launch/tpu_vm.sh", "launch/xpk.sh", "sbatch", "mufun", "gcloud", "kubectl", "docker", "xpk"}
    assert {command.split()[0] for command in COMMANDS} == known


@pytest.mark.parametrize("command", COMMANDS)
def test_a_shell_understands_the_command(command):
    assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0


def test_files_and_targets_are_there():
    for command in commands("kubectl apply"):
        assert (ROOT / shlex.split(command)[-1]).is_file()
    for command in commands("docker build"):
        words = shlex.split(command)
        recipe = (ROOT / words[words.index("--file") + 1]).read_text()
        assert f" AS {words[words.index('--target') + 1]}\n" in recipe
    manifest = (ROOT / "launch" / "jobset.yaml").read_text()
    for command in commands("kubectl delete"):
        assert f"  name: {shlex.split(command)[-1]}  #" in manifest


@pytest.mark.parametrize("command", commands("mufun plan"))
def test_a_plan_is_possible(command):
    words = shlex.split(command)
    option = {words[at]: words[at + 1] for at in range(2, len(words) - 1) if words[at].startswith("--")}
    settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    stage = option["--stage"]
    run = load_run_config(ROOT / option["--config"], [*settings, f"curriculum=({stage!r},)"])
    program: Any = "train"
    Request(run, stage, parse_topology(option["--topology"]), program).check()


@pytest.mark.parametrize("line", re.findall(r"^\| (`v\w+:.*) \|$", PAGE, flags=re.MULTILINE))
def test_the_costs_add_up(line):
    name, chips, short_step, short, long_step, long, chip_hours, hours = line.replace("≈ ", "").split(" | ")
    size = float(chips)
    topology = parse_topology(name.split("`")[1], 2 if "2 slices" in name else 1)
    assert size == topology.chips
    for step, seconds in ((short_step, short), (long_step, long)):
        found = re.fullmatch(r"(\d+) rows, ([\d.]+) s", step)
        if found:
            assert float(seconds) == pytest.approx(float(found[2]) * size / float(found[1]), rel=4e-3)
        else:
            assert step == "not planned"
            assert float(seconds) == pytest.approx(0.19 * float(long), rel=0.025)
    total = (STEPS["short"] * float(short) + STEPS["long"] * float(long)) / 3600
    assert float(chip_hours.replace(",", "")) == pytest.approx(total, abs=0.6)
    assert float(hours) == pytest.approx(total / size, abs=0.06)
    predicted = long_step.split(", ")[1]
    assert re.search(rf"^\| {re.escape(name)} \|.* {re.escape(predicted)} ", README, flags=re.MULTILINE), (
        "the other table"
    )


def test_the_rows_are_those_of_the_config():
    run = load_run_config(ROOT / "configs" / "mufun_8b.py", [])
    rows = {"short": 0, "long": 0}
    for stage in run.stages.values():
        assert stage.steps
        rows["short" if stage.positions == 768 else "long"] += stage.steps * stage.rows
    assert rows == STEPS
    assert f"{rows['short']:,} short rows and {rows['long']:,}" in PAGE.replace("\n", " ")
