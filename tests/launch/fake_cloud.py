"""A folder of programs that play `gcloud` and the clock to `launch/tpu_vm.sh`, and write down how they were called."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

# The state of the queued resource and of its machine are files, which its calls change as the cloud would. A run of the
# command takes the next line of `runs`: exit code, state of the queued resource and of the machine after it, seconds.
GCLOUD = """
printf '%s\\n' "$*" >>calls
state=$(cat state)
case "$*" in
    *"queued-resources describe"*)
        if [ "$state" = MISSING ]; then echo "ERROR: NOT_FOUND: Resource was not found" >&2; exit 1; fi
        if [ "$state" = BROKEN ]; then echo "ERROR: could not reach the service" >&2; exit 1; fi
        echo "WARNING: of something" >&2
        echo "$state"
        if [ "$state" = WAITING_FOR_RESOURCES ]; then echo ACTIVE >state; fi
        if [ "$state" = SUSPENDING ]; then echo SUSPENDED >state; fi
        ;;
    *"tpu-vm describe"*) cat machine ;;
    *"queued-resources create"*)
        if [ -f create_fails ]; then echo "ERROR: no quota" >&2; exit 1; fi
        cat after_create >state
        echo READY >machine
        ;;
    *"queued-resources delete"*) echo MISSING >state ;;
    *"tpu_vm_host.sh run"*)
        read -r code state machine seconds <runs
        sed -i 1d runs
        echo "$state" >state
        echo "$machine" >machine
        echo $(($(cat clock) + seconds)) >clock
        if [ "$code" = wait ]; then
            touch waiting
            while [ ! -f stopped ]; do /bin/sleep 0.05; done
            code=75
        fi
        exit "$code"
        ;;
    *"tpu_vm_host.sh stop --zone"*) touch stopped ;;
esac
"""


class FakeCloud:
    """A cloud in a folder, in which the queued resource is not there at first."""

    def __init__(self, folder: Path, runs: list[str], state: str = "MISSING", after_create: str = "ACTIVE") -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, text in {"state": state, "machine": "READY", "clock": "1000", "after_create": after_create}.items():
            (folder / name).write_text(text + "\n")
        (folder / "runs").write_text("".join(line + "\n" for line in runs))
        write_program(self.bin / "gcloud", f'cd "{folder}"\n{GCLOUD}')
        write_program(self.bin / "sleep", f'echo $(($(cat "{folder}/clock") + $1)) >"{folder}/clock"')
        write_program(self.bin / "date", f'cat "{folder}/clock"')

    @property
    def environment(self) -> dict[str, str]:
        # Were gcloud's own program found after all, it would find neither account nor project.
        return os.environ | {"PATH": f"{self.bin}:{os.environ['PATH']}", "CLOUDSDK_CONFIG": str(self.folder / "none")}

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "launch" / "tpu_vm.sh"), *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=120)

    def calls(self) -> list[str]:
        """What was asked for, in a word each, without the looks at states."""
        words = {
            "queued-resources create": "create",
            "queued-resources delete": "delete",
            " scp ": "copy",
            "tpu_vm_host.sh install": "install",
            "tpu_vm_host.sh run": "run",
            "tpu_vm_host.sh stop": "stop",
        }
        lines = (self.folder / "calls").read_text().splitlines()
        found = [next((word for part, word in words.items() if part in line), None) for line in lines]
        return [word for word in found if word]


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
