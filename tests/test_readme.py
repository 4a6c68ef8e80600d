"""Every command and every Python block of the READMEs is run, in a folder where `mufun demo --quick` was run."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from configs.mixtures import MIXTURES
from data_pipelines.sources.gtzan import GENRES
from data_pipelines.sources.table import data_set_table
from mufun_jax.config_file import load_run_config
from mufun_jax.plan.plan import Request
from mufun_jax.plan.topology import parse_topology
from tests.evaluate.synthetic_mucue import write_mucue
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import small_model, write_qwen3, write_released, write_stage, write_whisper

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DATA_PAGE = (ROOT / "data_pipelines" / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README + DATA_PAGE, flags=re.DOTALL)
COMMANDS = list(dict.fromkeys(line for kind, text in BLOCKS if kind == "sh" for line in text.strip().splitlines()))
OTHERWISE = re.compile("mufun_8b|--tfds")  # what this machine cannot do: other tests hold what the command says then
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT),
    # What one command compiled the next need not.
    "JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(prefix="mufun-readme-programs-"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
}


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
    samples, rate = soundfile.read(next((folder / "runs/demo/data/score_corpus/audio/songs").glob("*.flac")))
    for name in ("song.mp3", "other.ogg"):
        soundfile.write(folder / name, samples, rate)
    write_songs(folder / "songs", samples, rate)
    write_gtzan(folder / "GTZAN", samples, rate)
    write_ballroom(folder / "Ballroom", samples, rate)
    write_mucue(folder / "MuCUE", layout="folder", sets={"gtzan_key": 2}, questions_a_song=1)
    small = ReferenceModel(small_model())  # in the place of the models that a reader would have fetched
    write_released(folder / "MuFun-Instruct", small)
    write_stage(folder / "authors-stage", small)
    write_whisper(folder / "whisper-large-v3", small)
    write_qwen3(folder / "Qwen3-8B-Base", small)
    return folder


def write_songs(folder: Path, samples: np.ndarray, rate: int) -> None:
    """A reader's own songs: the very lines that the README shows, and a benchmark on another song."""
    folder.mkdir()
    lines = next(text for kind, text in BLOCKS if kind == "json")
    (folder / "songs.jsonl").write_text(lines)
    soundfile.write(folder / "one.mp3", samples, rate)
    soundfile.write(folder / "two.ogg", samples[: 3 * rate], rate)
    soundfile.write(folder / "held-out.flac", samples[::-1], rate)
    question = json.loads(lines.splitlines()[0]) | {"audio": "held-out.flac", "task": "genre"}
    (folder / "benchmark.json").write_text(json.dumps([question]))


def write_gtzan(folder: Path, samples: np.ndarray, rate: int) -> None:
    """GTZAN as it unpacks, with a fifth of a second for each excerpt."""
    for place, genre in enumerate(GENRES):
        for number in range(100):
            path = folder / "genres" / genre / f"{genre}.{number:05d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            start = 40 * (100 * place + number)
            soundfile.write(path, samples[start : start + rate // 5], rate)


def write_ballroom(folder: Path, samples: np.ndarray, rate: int) -> None:
    (folder / "BallroomData" / "Waltz").mkdir(parents=True)
    (folder / "BallroomAnnotations").mkdir()
    for number in range(6):
        name = f"Media-10590{number}"
        soundfile.write(folder / "BallroomData" / "Waltz" / f"{name}.wav", samples[100 * number : 4 * rate], rate)
        beats = "".join(f"{0.6 * beat:.3f} {beat % 3 + 1}\n" for beat in range(6))
        (folder / "BallroomAnnotations" / f"{name}.beats").write_text(beats)


def quickened(command: str) -> list[str]:
    """The command itself; a training run gets one step a stage, an evaluation only one task."""
    words = shlex.split(command.split("  #")[0])
    if words[:2] == ["mufun", "train"]:
        run = load_run_config(ROOT / words[words.index("--config") + 1])
        words += [word for name in run.curriculum for word in ("--set", f"stages.{name}.steps=1")]
    if words[:2] == ["mufun", "evaluate"] and "--task" not in words and "--data" not in words:
        words += ["--task", "pitch"]
    return words


def test_the_readme_has_commands():
    assert "make demo" in COMMANDS[0]
    assert sum(command.startswith("mufun") for command in COMMANDS) >= 4
    assert any(kind == "python" for kind, _ in BLOCKS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("mufun") and not OTHERWISE.search(c)])
def test_a_mufun_command_of_the_readme(command, folder):
    result = call(quickened(command), folder)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout, "an answer, if only an empty line: this model is hardly trained"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("make")])
def test_a_make_command_of_the_readme(command):
    words = shlex.split(command.split("  #")[0])
    assert call(["make", "--dry-run", *words[1:]], ROOT).returncode == 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("launch")])
def test_a_launch_command_of_the_readme(command):
    """What its processes do is held by tests/launch and tests/sharding."""
    script, *arguments = shlex.split(command)
    result = call([script, "--dry-run", *arguments], ROOT)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("mufun train") == int(arguments[0])


def test_every_command_is_of_a_kind_that_is_tested():
    assert {command.split()[0] for command in COMMANDS} == {"make", "mufun", "launch/local_pod.sh"}


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("mufun plan")])
def test_a_plan_of_the_readme_is_possible(command):
    """All but the compiling, which is minutes each: tests/plan/test_fits.py does that."""
    words = shlex.split(command)
    option = {words[at]: words[at + 1] for at in range(2, len(words) - 1) if words[at].startswith("--")}
    settings = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
    only = [f"curriculum=({option['--stage']!r},)"] if "--stage" in option else []
    run = load_run_config(ROOT / option["--config"], [*settings, *only])
    kind: Any = option.get("--program", "train")
    topology = parse_topology(option["--topology"], int(option.get("--slices", 1)))
    request = Request(run, run.curriculum[-1], topology, kind)
    if "--search" not in words:
        request.check()


@pytest.mark.parametrize("command", [c for c in COMMANDS if "mufun train --config configs/mufun_8b" in c])
def test_the_pod_command_says_what_is_missing(command, folder):
    """This machine is no pod: the command must get as far as looking for the others, and say so in a line."""
    result = call(quickened(command), folder)
    assert result.returncode == 2
    assert re.fullmatch(
        r"error: the processes cannot be joined .*; give --coordinator .*", result.stderr.splitlines()[-1]
    )


@pytest.mark.parametrize("command", [c for c in COMMANDS if "--tfds" in c])
def test_reading_through_tensorflow_says_what_to_install(command, folder):
    result = call(shlex.split(command), folder)
    assert result.returncode == 2
    assert "install it: pip install 'tensorflow-cpu'" in result.stderr.splitlines()[-1]


def test_the_table_of_data_sets_is_that_of_the_readers_and_mixtures():
    assert data_set_table(MIXTURES) in DATA_PAGE


@pytest.mark.parametrize("code", [text for kind, text in BLOCKS if kind == "python"])
def test_a_python_block_of_the_readme(code, folder):
    result = call([sys.executable, "-c", code], folder)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_tree_in_the_readme_is_the_tree():
    tree = next(text for kind, text in BLOCKS if kind == "text" and "mufun_jax/" in text)
    named = re.findall(r"^ *(\S+?/)\s", tree, flags=re.MULTILINE)
    folders = {path.name + "/" for path in (ROOT / "mufun_jax").iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders <= set(named)
    there = {path.name for top in ("mufun_jax", "configs", "data_pipelines") for path in (ROOT / top).rglob("*.py")}
    named_files = set(re.findall(r"(\w+\.py)", tree))
    assert len(named_files) > 60
    assert named_files <= there, named_files - there
