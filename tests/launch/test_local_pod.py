"""The launcher: processes are told who they are, one's end is the end of all, signals are passed on."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCHER = str(Path(__file__).parent.parent.parent / "launch" / "local_pod.sh")
WHO = 'echo "$MUFUN_PROCESS of $MUFUN_PROCESSES at $MUFUN_COORDINATOR"'


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LAUNCHER, *arguments], capture_output=True, text=True, check=False, timeout=120)


def start(folder: Path, setting: str, **environment: str) -> subprocess.Popen[bytes]:
    """Two processes that last, which have said their number in a folder; `setting` is what each does first."""
    command = f"{setting}; echo $$ > {folder}/$MUFUN_PROCESS; while true; do sleep 0.1; done"
    running = subprocess.Popen([LAUNCHER, "2", "bash", "-c", command], env=os.environ | environment)
    wait_until(lambda: all((folder / number).is_file() and (folder / number).read_text() for number in "01"))
    return running


def is_running(pid_file: Path) -> bool:
    """Whether the process with the number in a file lives (a zombie, which nobody here would reap, does not)."""
    stat = Path("/proc") / pid_file.read_text().strip() / "stat"
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_every_process_is_told_who_it_is_and_the_first_one_prints(tmp_path):
    result = launch("3", "bash", "-c", f"{WHO}; echo to stderr >&2", "--", "--workdir", str(tmp_path))
    assert result.returncode == 0
    assert re.fullmatch(r"0 of 3 at 127\.0\.0\.1:\d+\n", result.stdout)
    assert result.stderr == "to stderr\n"
    address = result.stdout.split()[-1]
    logs = tmp_path / "processes"
    assert sorted(log.name for log in logs.iterdir()) == ["process-1.log", "process-2.log"]
    assert (logs / "process-2.log").read_text() == f"2 of 3 at {address}\nto stderr\n"


@pytest.mark.parametrize(
    ("failing", "code"),
    [("echo broken; exit 7", 7), ("kill -KILL $$", 137), ("kill -KILL 0", 137)],  # 0: all of its group
)
def test_when_one_fails_all_end_with_what_they_started(tmp_path, failing, code):
    lasting = f"sleep 600 & echo $! > {tmp_path}/$MUFUN_PROCESS; wait"
    started = time.monotonic()
    result = launch("3", "bash", "-c", f"if [ $MUFUN_PROCESS = 1 ]; then sleep 0.5; {failing}; fi; {lasting}")
    assert time.monotonic() - started < 60, "the others would have lasted 600 s"
    assert result.returncode == code
    assert f"local_pod.sh: process 1 of 3 ended with exit code {code}; ending the others" in result.stderr
    assert ("broken" in result.stderr) == ("broken" in failing)
    wait_until(lambda: not any(is_running(tmp_path / number) for number in ("0", "2")))


@pytest.mark.parametrize(("sent", "name", "code"), [(signal.SIGINT, "INT", 130), (signal.SIGTERM, "TERM", 143)])
def test_signals_are_passed_on_and_what_stays_is_killed(tmp_path, sent, name, code):
    """Process 1 ends itself when it is told to; process 0 listens to SIGINT only."""
    told = f"trap 'echo told > {tmp_path}/told; exit 0' {name}"
    trap = f"if [ $MUFUN_PROCESS = 1 ]; then {told}; else trap '' TERM; fi"
    running = start(tmp_path, trap, LOCAL_POD_SAVE_SECONDS="2")
    os.kill(running.pid, sent)
    assert running.wait(timeout=30) == code, "it would have had 60 s"
    assert (tmp_path / "told").read_text() == "told\n"
    wait_until(lambda: not is_running(tmp_path / "0"))


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_what_is_told_to_end_may_save(tmp_path, sent, code):
    """Longer than what is ended because another failed; and process 0 says whether it has saved."""
    trap = f"trap 'sleep 8; echo saved >> {tmp_path}/saved; exit {code}' INT TERM"
    running = start(tmp_path, trap)
    os.kill(running.pid, sent)
    assert running.wait(timeout=60) == code
    assert (tmp_path / "saved").read_text() == "saved\n" * 2


def test_a_dry_run_prints_commands_that_a_shell_understands(tmp_path):
    result = launch("--dry-run", "2", "echo", "a b", "--workdir", str(tmp_path / "none"))
    assert result.returncode == 0
    first, second = result.stdout.splitlines()
    assert re.fullmatch(
        rf"MUFUN_COORDINATOR=127\.0\.0\.1:\d+ MUFUN_PROCESSES=2 MUFUN_PROCESS=0 echo a\\ b --workdir {tmp_path}/none",
        first,
    )
    assert second.endswith(
        f"MUFUN_PROCESS=1 echo a\\ b --workdir {tmp_path}/none >{tmp_path}/none/processes/process-1.log 2>&1"
    )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "'' is no number of processes"),
        (("mufun", "train"), "'mufun' is no number of processes"),
        (("0", "true"), "'0' is no number of processes"),
        (("2",), "no command"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    result = launch(*arguments)
    assert result.returncode == 2
    assert result.stderr == f"local_pod.sh: {message}: local_pod.sh [--dry-run] N COMMAND...\n"
