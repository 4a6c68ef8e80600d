"""xpk is asked for the workload that was meant; a fake one writes down how it was called."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.launch.fake_cloud import ROOT, write_program

OPTIONS = {
    "--name": "song",
    "--cluster": "music",
    "--zone": "us-west4-a",
    "--tpu-type": "v5litepod-256",
    "--image": "mufun:tpu",
}
COMMAND = ("--", "mufun", "train", "--distributed", "--set", "data=a b")


def call(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    programs = folder / "bin"
    programs.mkdir()
    write_program(programs / "xpk", f'printf "%s\\n" "$@" >"{folder}/words"; exit {code}')
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"}
    script = str(ROOT / "launch" / "xpk.sh")
    return subprocess.run(
        [script, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def options(**changes: str | None) -> list[str]:
    merged = OPTIONS | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return [word for name, value in merged.items() if value is not None for word in (name, value)]


@pytest.mark.parametrize("code", [0, 1])
def test_the_workload_restarts_on_all_but_mistakes(tmp_path, code):
    assert call(tmp_path, *options(slices="2", storage="bucket"), *COMMAND, code=code).returncode == code
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:2] == ["workload", "create"]
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert (given["--num-slices"], given["--storage"], given["--max-restarts"]) == ("2", "bucket", "50")
    assert given["--termination-grace-period-seconds"] == "120"
    # 127 to 255 are xpk's own; what is left is 0, which is the end, and 2.
    ends = [[int(end) for end in part.split("-")] for part in given["--restart-on-exit-codes"].split(",")]
    again = {code for part in ends for code in range(part[0], part[-1] + 1)}
    assert again == set(range(127)) - {0, 2}
    command = shlex.split(given["--command"])
    assert command == ["exec", *COMMAND[1:]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (options(), "no command"),
        ([*options(cluster=None), *COMMAND], "--cluster is missing"),
        ([*options(tpu_type=None), *COMMAND], "--tpu-type is missing"),
        ([*options(name="A"), *COMMAND], "--name 'A': small letters, digits and dashes"),
        ([*options(slices="0"), *COMMAND], "--slices '0' is no number of slices"),
        ([*options(imag="x"), *COMMAND], "'--imag' is no option; the command comes after --"),
        ([*options(), "--", "mufun", "train"], "mufun train without --distributed: every host would train alone"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, message):
    result = call(tmp_path, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith(f"xpk.sh: {message}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "words").exists()
