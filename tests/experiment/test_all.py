"""Every experiment that trains, by its command, at its smallest sizes: hours with the others, minutes each."""

import json

import pytest

from mufun_jax.experiment.registry import EXPERIMENTS


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.trains])
def test_an_experiment_runs_from_nothing_to_its_page(run, tmp_path, name):
    code, printed, error = run("experiment", name, "--quick", "--seeds", 1, "--workdir", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert code == (0 if report["holds"] else 1), error
    assert EXPERIMENTS[name].question in printed
    assert report["experiment"] == name
    measured = {run["arm"] for run in report["measured"]}
    assert len(measured) >= (1 if name == "connector-warmup" else 2)
    assert all(run["steps"] and run["stopped"] is None for run in report["measured"])
    page = (tmp_path / "report.html").read_text()
    assert all(arm in page for arm in measured)
