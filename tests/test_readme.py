"""Every command and every Python block of the README is run, in a folder where `mufun demo --quick` was run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from mufun_jax.config import load_run_config
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import small_model, write_qwen3, write_released, write_stage, write_whisper

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.strip().splitlines()]
ENVIRONMENT = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkout as it is after the demo, which is cut short."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "configs").symlink_to(ROOT / "configs")
    result = call(["mufun", "demo", "--quick"], folder)
    assert result.returncode == 0, result.stderr[-3000:]
    for heading in ("1. Music", "2. Six stages", "3. What it heard", "4. Two questions", "Ask your own:"):
        assert heading in result.stdout
    samples, rate = soundfile.read(next((folder / "runs/demo/corpus/audio/songs").glob("*.flac")))
    for name in ("song.mp3", "other.ogg"):
        soundfile.write(folder / name, samples, rate)
    small = ReferenceModel(small_model())  # in the place of the models that a reader would have fetched
    write_released(folder / "MuFun-Instruct", small)
    write_stage(folder / "authors-stage", small)
    write_whisper(folder / "whisper-large-v3", small)
    write_qwen3(folder / "Qwen3-8B-Base", small)
    return folder


def quickened(command: str) -> list[str]:
    """The command itself; a training run gets one step a stage, an evaluation one task."""
    words = shlex.split(command.split("  #")[0])
    if words[:2] == ["mufun", "train"]:
        run = load_run_config(ROOT / words[words.index("--config") + 1])
        words += [word for name in run.curriculum for word in ("--set", f"stages.{name}.steps=1")]
    if words[:2] == ["mufun", "evaluate"]:
        words += ["--task", "pitch"]
    return words


def test_the_readme_has_commands():
    assert "make demo" in COMMANDS[0]
    assert sum(command.startswith("mufun") for command in COMMANDS) >= 4
    assert any(kind == "python" for kind, _ in BLOCKS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("mufun") and "mufun_8b" not in c])
def test_a_mufun_command_of_the_readme(command, folder):
    result = call(quickened(command), folder)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout, "an answer, if only an empty line: this model is hardly trained"


@pytest.mark.parametrize("command", [c for c in COMMANDS if not c.startswith("mufun")])
def test_a_make_command_of_the_readme(command):
    words = shlex.split(command.split("  #")[0])
    assert words[0] == "make"
    assert call(["make", "--dry-run", *words[1:]], ROOT).returncode == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if "mufun_8b" in c])
def test_the_pod_command_says_what_is_missing(command, folder):
    """This machine is no pod: the command must get as far as counting its devices, and say so in a line."""
    result = call(quickened(command), folder)
    assert result.returncode == 2
    assert re.fullmatch(
        r"error: mesh: data 2 x fsdp 128 .* = 256 devices, but 1 are here.*", result.stderr.splitlines()[-1]
    )


@pytest.mark.parametrize("code", [text for kind, text in BLOCKS if kind == "python"])
def test_a_python_block_of_the_readme(code, folder):
    result = call([sys.executable, "-c", code], folder)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_tree_in_the_readme_is_the_tree():
    tree = next(text for kind, text in BLOCKS if kind == "text" and "mufun_jax/" in text)
    named = re.findall(r"^ *(\S+?/)\s", tree, flags=re.MULTILINE)
    folders = {path.name + "/" for path in (ROOT / "mufun_jax").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders <= set(named)
    for name in re.findall(r"(\w+\.py)", tree):
        assert list(ROOT.glob(f"*/**/{name}")), f"{name} is in the README, not in the tree"
