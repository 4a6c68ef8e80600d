"""On each host of a slice: a command outlives the connection, is taken up again, and is stopped with time to save."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.launch.fake_cloud import ROOT


@pytest.fixture
def host(tmp_path) -> Iterator[Path]:
    """The script where tpu_vm.sh unpacks it. What still runs when a test has failed is stopped."""
    launch = tmp_path / "mufun" / "code" / "launch"
    launch.mkdir(parents=True)
    yield Path(shutil.copy(ROOT / "launch" / "tpu_vm_host.sh", launch))
    pid = tmp_path / "mufun" / "run" / "pid"
    with suppress(ProcessLookupError, FileNotFoundError):
        os.killpg(int(pid.read_text()), signal.SIGKILL)


def call(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def begin(*words: object, printed: Path | None = None) -> subprocess.Popen[bytes]:
    """What a connection runs: in a session of its own, as sshd gives it one."""
    with open(printed or os.devnull, "wb") as file:
        return subprocess.Popen([str(word) for word in words], stdout=file, start_new_session=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("code", [0, 2, 75])
def test_it_prints_what_the_command_prints_and_ends_as_it_does(host, code):
    result = call(host, "run", "one-1", "bash", "-c", f'echo "$0 of $PWD"; echo aside >&2; exit {code}', "a  word")
    assert result.returncode == code
    assert result.stdout == f"a  word of {host.parent.parent}\naside\n"


def test_programs_of_the_venv_come_first(host):
    program = host.parent.parent.parent / "venv" / "bin" / "mufun"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/bash\necho this one\n")
    program.chmod(0o755)
    assert call(host, "run", "one-1", "mufun").stdout == "this one\n"


def test_a_connection_that_is_lost_is_taken_up_again(host, tmp_path):
    command = (
        "bash",
        "-c",
        f"echo started | tee -a {tmp_path}/starts; while [ ! -e {tmp_path}/end ]; do sleep 0.1; done; exit 75",
    )
    lost = begin(host, "run", "one-1", *command)
    wait_for(tmp_path / "starts")
    os.killpg(lost.pid, signal.SIGKILL)
    lost.wait(timeout=30)
    again = begin(host, "run", "one-1", *command, printed=tmp_path / "printed")
    time.sleep(0.5)
    assert again.poll() is None, "it waits for the command, which still runs"
    (tmp_path / "end").touch()
    assert again.wait(timeout=30) == 75
    assert (tmp_path / "printed").read_text() == "started\n"
    assert (tmp_path / "starts").read_text() == "started\n", "once"


def test_what_an_earlier_run_left_is_stopped_and_may_save(host, tmp_path):
    trap = f"trap 'sleep 1; touch {tmp_path}/saved; exit 75' TERM"
    left = f"{trap}; touch {tmp_path}/started; while true; do sleep 0.1; done"
    before = begin(host, "run", "one-1", "bash", "-c", left)
    wait_for(tmp_path / "started")
    result = call(host, "run", "one-2", "test", "-e", tmp_path / "saved")
    assert result.returncode == 0, "the second came after the first had saved"
    assert before.wait(timeout=30) in (75, 137), "its exit code, unless the second run has cleared it away already"


def test_stop_ends_the_command_with_all_that_it_started(host, tmp_path):
    assert call(host, "stop").returncode == 0, "nothing runs"
    running = begin(
        host, "run", "one-1", "bash", "-c", f"sleep 600 & echo $! > {tmp_path}/child; touch {tmp_path}/started; wait"
    )
    wait_for(tmp_path / "started")
    assert call(host, "stop").returncode == 0
    assert running.wait(timeout=30) == 143
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_command_that_was_killed_ends_so(host):
    assert call(host, "run", "one-1", "bash", "-c", "kill -KILL 0").returncode == 137


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "'' is not install, mount, run or stop"),
        (("run", "one-1"), "run needs a number and a command"),
        (("mount", "bucket"), "mount needs a bucket and a folder"),
    ],
)
def test_mistakes_are_one_line(host, arguments, message):
    result = call(host, *arguments)
    assert (result.returncode, result.stderr) == (2, f"tpu_vm_host.sh: {message}\n")
