"""The whole demo, as `make demo` runs it: the model must hear. And the same bytes for the same seed."""

import json
import subprocess
import sys

import pytest

from mufun_jax.evaluate.report import is_heard
from mufun_jax.evaluate.run import TaskScore


@pytest.mark.slow
def test_the_demo_trains_a_model_that_hears(tmp_path):
    command = [sys.executable, "-m", "mufun_jax.cli", "demo", "--workdir", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    print(result.stdout)
    assert result.returncode == 0, result.stderr[-3000:]
    scores = json.loads((tmp_path / "demo" / "scores.json").read_text())["tasks"]
    assert set(scores) == {"pitch", "instrument", "key", "tempo", "meter", "dance"}
    for task in ("pitch", "instrument"):
        assert scores[task]["n"] >= 200
        assert is_heard(TaskScore(**scores[task])), (task, scores[task])
    stages = ("warmup", "align1", "align2", "context_extend", "finetune_short", "finetune_long")
    assert [line.split()[0] for line in result.stdout.splitlines() if " trainable parameters " in line] == list(stages)
