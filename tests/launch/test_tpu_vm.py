"""The launcher of TPU VMs starts what was preempted or crashed again, and knows when to end; `gcloud` is a fake."""

import os
import signal
import subprocess
import time

import pytest

from tests.launch.fake_cloud import ROOT, FakeCloud

OPTIONS = ("--name", "song", "--zone", "us-west4-a", "--accelerator", "v5litepod-256")
COMMAND = ("--", "mufun", "train", "--config", "configs/nano.py", "--distributed")
START = ["copy", "install", "run"]
FINE = "ACTIVE READY 3600"
QUICK = "ACTIVE READY 60"


def test_a_run_that_ends_well_is_the_end(tmp_path):
    cloud = FakeCloud(tmp_path, [f"0 {FINE}"])
    result = cloud.launch(*OPTIONS, *COMMAND)
    assert result.returncode == 0, result.stderr
    assert cloud.calls() == ["create", *START]
    assert "song is still there, and costs money" in result.stderr


def test_what_is_there_already_is_used(tmp_path):
    cloud = FakeCloud(tmp_path, [f"0 {FINE}"], state="ACTIVE")
    assert cloud.launch(*OPTIONS, *COMMAND).returncode == 0
    assert cloud.calls() == START


def test_it_waits_for_its_turn(tmp_path):
    cloud = FakeCloud(tmp_path, [f"0 {FINE}"], after_create="WAITING_FOR_RESOURCES")
    result = cloud.launch(*OPTIONS, *COMMAND)
    assert result.returncode == 0
    assert "tpu_vm.sh: song is WAITING_FOR_RESOURCES\ntpu_vm.sh: song is ACTIVE\n" in result.stderr
    assert int((tmp_path / "clock").read_text()) == 1000 + 30 + 3600


@pytest.mark.parametrize(
    "lost",
    ["255 SUSPENDING PREEMPTED 60", "1 SUSPENDED PREEMPTED 60", "255 ACTIVE PREEMPTED 60", "137 FAILED READY 60"],
)
def test_what_was_preempted_is_created_anew(tmp_path, lost):
    """A preemption is no crash: it is not counted, however often and soon it happens."""
    cloud = FakeCloud(tmp_path, [*[lost] * 4, f"0 {FINE}"])
    result = cloud.launch(*OPTIONS, "--most-restarts", "2", *COMMAND)
    assert result.returncode == 0, result.stderr
    assert cloud.calls() == ["create", *START, *["delete", "create", *START] * 4]


def test_what_has_saved_starts_again(tmp_path):
    cloud = FakeCloud(tmp_path, [*[f"75 {QUICK}"] * 4, "75 SUSPENDED PREEMPTED 60", f"0 {FINE}"])
    result = cloud.launch(*OPTIONS, "--most-restarts", "0", *COMMAND)
    assert result.returncode == 0, result.stderr
    assert cloud.calls() == ["create", *START * 5, "delete", "create", *START]


def test_a_mistake_is_the_end(tmp_path):
    cloud = FakeCloud(tmp_path, [f"2 {QUICK}", f"0 {FINE}"])
    result = cloud.launch(*OPTIONS, *COMMAND)
    assert result.returncode == 2
    assert cloud.calls() == ["create", *START]
    assert "exit code 2 is a mistake that no restart mends" in result.stderr


def test_crashes_are_started_again_so_often(tmp_path):
    cloud = FakeCloud(tmp_path, [*[f"1 {QUICK}"] * 5, f"137 {QUICK}", f"0 {FINE}"])
    result = cloud.launch(*OPTIONS, *COMMAND)
    assert result.returncode == 137, "the last one's"
    assert cloud.calls() == ["create", *START * 6]
    assert "exit code 137, 6 times in a row within 600 s; giving up" in result.stderr


@pytest.mark.parametrize("between", [f"1 {FINE}", f"75 {QUICK}"])
def test_progress_forgets_crashes(tmp_path, between):
    """The run between lasted, or has saved: the crash after it is the first, or second, of another row."""
    cloud = FakeCloud(tmp_path, [*[f"255 {QUICK}"] * 2, between, f"255 {QUICK}", f"0 {FINE}"])
    result = cloud.launch(*OPTIONS, "--most-restarts", "2", *COMMAND)
    assert result.returncode == 0, result.stderr
    assert cloud.calls() == ["create", *START * 5]


def test_where_nothing_can_be_created_it_ends(tmp_path):
    cloud = FakeCloud(tmp_path, [])
    (tmp_path / "create_fails").touch()
    result = cloud.launch(*OPTIONS, "--most-restarts", "1", *COMMAND)
    assert result.returncode == 1
    assert cloud.calls() == ["create", "create"]
    assert result.stderr.count("ERROR: no quota") == 2
    assert "still there" not in result.stderr


def test_a_request_that_fails_is_not_made_for_ever(tmp_path):
    cloud = FakeCloud(tmp_path, [], after_create="FAILED")
    assert cloud.launch(*OPTIONS, "--most-restarts", "1", *COMMAND).returncode == 1
    assert cloud.calls() == ["create", "delete", "create"]


def test_where_gcloud_cannot_answer_it_says_what_gcloud_said(tmp_path):
    cloud = FakeCloud(tmp_path, [], state="BROKEN")
    result = cloud.launch(*OPTIONS, "--most-restarts", "0", *COMMAND)
    assert result.returncode == 1
    assert "ERROR: could not reach the service" in result.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize("runs", [[f"0 {FINE}"], [f"2 {QUICK}"]])
def test_it_is_deleted_at_the_end_on_request(tmp_path, runs):
    cloud = FakeCloud(tmp_path, runs)
    cloud.launch(*OPTIONS, "--delete", *COMMAND)
    assert cloud.calls() == ["create", *START, "delete"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_on_the_hosts(tmp_path, sent, code):
    cloud = FakeCloud(tmp_path, ["wait ACTIVE READY 60"])
    running = subprocess.Popen([str(ROOT / "launch" / "tpu_vm.sh"), *OPTIONS, *COMMAND], env=cloud.environment)
    end = time.monotonic() + 60
    while not (tmp_path / "waiting").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(running.pid, sent)
    try:
        assert running.wait(timeout=60) == code
    finally:
        (tmp_path / "stopped").touch()  # the fake command ends, whatever has failed
    assert cloud.calls() == ["create", *START, "stop"]


def test_words_reach_the_hosts_as_they_are(tmp_path):
    cloud = FakeCloud(tmp_path, [f"0 {FINE}"])
    cloud.launch(*OPTIONS, "--", "echo", "it's", "a b", "$HOME")
    (run,) = [line for line in (tmp_path / "calls").read_text().splitlines() if "tpu_vm_host.sh run" in line]
    words = run.partition("tpu_vm_host.sh run ")[2].partition(" --zone")[0].partition(" ")[2]
    assert subprocess.check_output(["bash", "-c", words], text=True) == "it's a b $HOME\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (OPTIONS, "no command"),
        ((*OPTIONS, "--"), "no command"),
        ((*OPTIONS, "--nam", "x", *COMMAND), "'--nam' is no option; the command comes after --"),
        ((*OPTIONS, "--slices", "no", *COMMAND), "--slices 'no' is no number of slices"),
        ((*OPTIONS, "--most-restarts", "-1", *COMMAND), "--most-restarts '-1' is no number"),
        ((*OPTIONS, "--mount", "/mnt/x", *COMMAND), "--mount /mnt/x without --bucket"),
        ((*OPTIONS, "--name", "A B", *COMMAND), "--name 'A B': small letters, digits and dashes"),
        ((*OPTIONS, "--commit", "nowhere", *COMMAND), "--commit nowhere: no commit of this repository"),
        ((*OPTIONS, "--accelerator", "tpu7x-256", *COMMAND), "--accelerator tpu7x-256: v4-"),
        (OPTIONS[:2] + COMMAND, "--zone is missing"),
        (OPTIONS[:4] + COMMAND, "--accelerator is missing"),
        ((*OPTIONS, "--", "mufun", "train"), "mufun train without --distributed: every host would train alone"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_done(tmp_path, arguments, message):
    cloud = FakeCloud(tmp_path, [])
    result = cloud.launch(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"tpu_vm.sh: {message}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()
