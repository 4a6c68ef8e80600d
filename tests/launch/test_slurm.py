"""The batch job goes back into the queue when it has saved, and only then; `srun` and `scontrol` are fakes."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.launch.fake_cloud import ROOT, write_program

SCRIPT = ROOT / "launch" / "slurm.sh"


def run_job(folder: Path, code: int, *command: str, job: str | None = "41") -> subprocess.CompletedProcess[str]:
    """A job's script as SLURM runs it: a copy elsewhere, in the folder that the job was submitted from."""
    programs = folder / "bin"
    programs.mkdir()
    for name, end in (("srun", code), ("scontrol", 0)):
        write_program(programs / name, f'echo "{name} $*" >>"{folder}/calls"; exit {end}')
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    environment |= {} if job is None else {"SLURM_JOB_ID": job}
    copy = folder / "slurm_script"
    copy.write_text(SCRIPT.read_text())
    return subprocess.run(
        ["bash", str(copy), *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("code", [0, 1, 2, 75, 137, 143])
def test_only_what_has_saved_is_requeued(tmp_path, code):
    result = run_job(tmp_path, code, "mufun", "train", "--distributed")
    assert result.returncode == code
    started = "srun --kill-on-bad-exit=0 --wait=120 mufun train --distributed\n"
    requeued = "scontrol requeue 41\n" if code == 75 else ""
    assert (tmp_path / "calls").read_text() == started + requeued


def test_the_checkouts_programs_come_first(tmp_path):
    write = tmp_path / ".venv" / "bin"
    write.mkdir(parents=True)
    write_program(write / "srun", f'touch "{tmp_path}/found"')
    assert run_job(tmp_path, 1, "true").returncode == 0
    assert (tmp_path / "found").exists()


def test_the_job_is_told_before_its_time_is_over_and_may_come_back():
    options = [line.split(maxsplit=1)[1] for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--signal=TERM@120", "--requeue", "--open-mode=append"} <= set(options)
    tasks, gpus = (
        next(o.split("=")[1] for o in options if o.startswith(name))
        for name in ("--ntasks-per-node", "--gpus-per-node")
    )
    assert tasks == gpus
    assert SCRIPT.read_text().index("#SBATCH") < SCRIPT.read_text().index("set -euo"), "SLURM reads no further"


@pytest.mark.parametrize(
    ("command", "job", "message"),
    [
        ((), "41", "no command"),
        (("mufun", "train"), "41", "mufun train without --distributed"),
        (("mufun", "train", "--distributed"), None, "this is no job of SLURM's: sbatch launch/slurm.sh mufun train"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, command, job, message):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    result = run_job(tmp_path, 0, *command, job=job)
    assert result.returncode == 2
    assert result.stderr.startswith(f"slurm.sh: {message}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()
