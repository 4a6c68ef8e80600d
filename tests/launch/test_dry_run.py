"""Every script prints what it would run, as written in expected/, in lines that a shell understands."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launch.fake_cloud import ROOT, write_program

EXPECTED = Path(__file__).parent / "expected"
TRAIN = ("mufun", "train", "--config", "configs/mufun_8b.py", "--workdir", "/mnt/music/8b", "--distributed")
WORDS = ("--set", "curriculum=('align1', 'finetune_long')")
TPU = ("--name", "mufun-8b", "--project", "songs", "--zone", "us-west4-a", "--accelerator", "v5litepod-256")
GKE = ("--name", "mufun-8b", "--cluster", "music", "--zone", "us-west4-a", "--tpu-type", "v5litepod-256")
RUNS = {
    "local_pod": ("local_pod.sh", "2", "mufun", "train", "--workdir", "runs/pod", *WORDS),
    "tpu_vm": ("tpu_vm.sh", *TPU, "--spot", "--bucket", "music", "--", *TRAIN, *WORDS),
    "tpu_vm_slices": (
        *("tpu_vm.sh", "--name", "two", "--zone", "us-east5-a", "--accelerator", "v5p-128", "--slices", "2"),
        *("--runtime-version", "some", "--commit", "HEAD~1", "--bucket", "music", "--mount", "/data/music", "--"),
        *(*TRAIN, "--set", "mesh.data=2"),
    ),
    "xpk": ("xpk.sh", *GKE, "--image", "songs/mufun:tpu", "--", *TRAIN, *WORDS),
    "xpk_slices": (
        *(
            "xpk.sh",
            *GKE,
            "--project",
            "songs",
            "--slices",
            "2",
            "--spot",
            "--storage",
            "music",
            "--most-restarts",
            "9",
        ),
        *("--image", "songs/mufun:tpu", "--", *TRAIN),
    ),
    "slurm": ("slurm.sh", *TRAIN, *WORDS),
    "tpu_vm_host_install": ("tpu_vm_host.sh", "install"),
    "tpu_vm_host_mount": ("tpu_vm_host.sh", "mount", "music", "/mnt/music"),
    "tpu_vm_host_run": ("tpu_vm_host.sh", "run", "1", *TRAIN, *WORDS),
    "tpu_vm_host_stop": ("tpu_vm_host.sh", "stop"),
}
# All that a dry run may need: whatever else it called would not be found.
TOOLS = ("bash", "env", "dirname", "sed", "mountpoint", "cat")


@pytest.fixture
def programs(tmp_path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    write_program(folder / "id", "echo 1000")
    write_program(folder / "lsb_release", "echo jammy")
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_dry_run_prints_what_is_expected(name, tmp_path, programs):
    script, *arguments = RUNS[name]
    launch = Path(shutil.copytree(ROOT / "launch", tmp_path / "mufun" / "code" / "launch"))
    environment = {"PATH": str(programs), "TMPDIR": "/tmp"}
    command = [str(launch / script), "--dry-run", *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    printed = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", result.stdout).replace(str(tmp_path / "mufun"), "FOLDER")
    assert printed == (EXPECTED / f"{name}.txt").read_text()
    for line in printed.splitlines():
        assert subprocess.run(["bash", "-n", "-c", line], check=False).returncode == 0, line


def test_every_script_and_every_expectation_is_run():
    assert {script for script, *_ in RUNS.values()} == {path.name for path in (ROOT / "launch").glob("*.sh")}
    assert {f"{name}.txt" for name in RUNS} == {path.name for path in EXPECTED.iterdir()}


def test_a_host_that_has_all_installs_no_packages(tmp_path, programs):
    """Neither Python nor gcsfuse, and no second mount of the folder."""
    write_program(programs / "python3.13", "exit 0")
    write_program(programs / "gcsfuse", "exit 1")
    script = str(shutil.copytree(ROOT / "launch", tmp_path / "mufun" / "code" / "launch") / "tpu_vm_host.sh")
    printed = [
        subprocess.check_output([script, "--dry-run", *words], env={"PATH": str(programs)}, text=True)
        for words in (("install",), ("mount", "music", "/mnt/music"), ("mount", "music", "/proc"))
    ]
    assert "apt-get" not in "".join(printed)
    assert printed[0].startswith("python3.13 -m venv ")
    assert printed[1].endswith("gcsfuse --metadata-cache-ttl-secs 0 music /mnt/music\n")
    assert printed[2] == "", "/proc is a mount point"
