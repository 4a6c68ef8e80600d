"""Whatever is in a file, it becomes samples or one line that says why not, in bounded memory and time."""

import subprocess
import sys
from collections import Counter

import pytest

from tests.audio.songs import FORMATS

CASES = 110  # a format: ten of every mutation


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_files_give_audio_or_an_error(name, tmp_path):
    child = subprocess.run(
        [sys.executable, "-m", "tests.audio.mutations", str(tmp_path), name, str(CASES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # the decoder of MP3 talks
        text=True,
        timeout=300,
    )
    lines = child.stdout.splitlines()
    assert child.returncode == 0, f"the process died (status {child.returncode}) at: {lines[-1] if lines else 'start'}"
    assert [line for line in lines if "FAILED" in line] == []
    counts = Counter(line.rsplit(": ", 1)[1] for line in lines)
    assert counts.total() == CASES
    assert counts["audio"] >= 5, f"the mutations leave nothing whole: {counts}"
    assert counts["warned"] + counts["tolerated"] >= 5, f"nothing is half broken: {counts}"
    assert counts["refused"] >= 5, f"the mutations break nothing: {counts}"
