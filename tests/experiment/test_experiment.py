"""What all experiments share: the list of them, their records, and the report."""

import json
from dataclasses import replace

import pytest

from mufun_jax.errors import UserError
from mufun_jax.experiment.experiment import Options, chosen_arms
from mufun_jax.experiment.finished import Finished
from mufun_jax.experiment.outcome import Check, Line, Outcome, ResultFigure, ResultTable, cell_text
from mufun_jax.experiment.outcome_folder import write_outcome
from mufun_jax.experiment.outcome_table import outcome_tables
from mufun_jax.experiment.registry import EXPERIMENTS, find_experiment
from tests.train.tiny_run import tiny_run

NO_NUMBER = float("nan")
OUTCOME = Outcome(
    experiment="context-boundary",
    question="Is <b>it</b> so?",
    answer="Yes.",
    setting={"data": "a</script>b"},
    checks=(Check("well", True, "as it should"),),
    tables=(ResultTable("Scores", ("task", "one"), (("pitch\x1b[31m", 0.5), ("key", None))),),
    figures=(
        ResultFigure("Loss", "lines", "step", "nats", (Line("a", (1, 2), (0.5, NO_NUMBER)), Line("b", (1,), (1.0,)))),
        ResultFigure("Bars", "bars", "task", "accuracy", (Line("a", ("<i>x</i>",), (0.5,), (0.1,)),)),
    ),
)


def test_a_misspelt_experiment_or_arm_gets_the_nearest(tiny_corpus):
    with pytest.raises(UserError, match=r"no experiment 'context-boundry' \(did you mean 'context-boundary'\?\)"):
        find_experiment("context-boundry")
    with pytest.raises(UserError, match=r"has no arm 'seam' \(did you mean 'seams'\?\); there are tokens, seams"):
        chosen_arms(find_experiment("context-boundary"), Options(tiny_run(tiny_corpus), arms=("seam",)))


def test_the_list_names_every_experiment_and_arm(run):
    code, out, _ = run("experiment", "list")
    assert code == 0
    for name, experiment in EXPERIMENTS.items():
        assert f"{name}: {experiment.question}" in out
        for arm, what in experiment.arms.items():
            assert f"    {arm}: {what}" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("curriculum", "--replace", "a=b"), "--replace is of open-data: curriculum replaces nothing"),
        (("curriculum", "--checkpoint", "a"), "curriculum trains its models; begin them from one with --set initial_"),
        (("context-boundary", "--held-out-soundfont", "a.sf2"), "--held-out-soundfont is for the score corpus that is"),
        (("curriculum", "--data", "d", "--held-out-soundfont", "a.sf2"), "it does not go with --data"),
        (("context-boundary", "--whisper", "base"), "context-boundary trains nothing"),
        (("context-boundary", "--checkpoint", "a", "--checkpoint", "b"), "2 checkpoints, and this experiment looks at"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run, tmp_path, arguments, said):
    code, _, error = run("experiment", *arguments, "--workdir", tmp_path / "work")
    assert code == 2
    assert said in error


def test_a_record_is_of_its_setting_only(tmp_path):
    finished = Finished(tmp_path, "four layers", 3, {"a": {"b": (1, 2)}})
    assert finished.read() is None
    assert finished.write({"x": 0.5}) == finished.read() == {"x": 0.5}
    assert (tmp_path / "arms" / "four_layers" / "seed_3" / "measured.json").is_file()
    with pytest.raises(UserError, match=r"something else \(a\.b: \[1, 2\] is not 3\); choose another --workdir"):
        Finished(tmp_path, "four layers", 3, {"a": {"b": 3}}).read()


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"setting": {}, "measured": 1}'])
def test_a_damaged_record_is_refused(tmp_path, text):
    finished = Finished(tmp_path, "one", 0, {})
    finished.write({})
    (finished.folder / "measured.json").write_text(text)
    with pytest.raises(UserError, match=r"measured\.json: (no record|not a JSON object|not JSON)"):
        finished.read()


def test_the_report_is_read_by_programs_and_browsers(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_outcome(tmp_path, OUTCOME, 0.0)  # JSON has no word for it
    finite = replace(OUTCOME, figures=OUTCOME.figures[1:])
    paths = write_outcome(tmp_path, finite, 0.0)
    written = json.loads(paths[0].read_text())
    assert written["made"] == "1970-01-01 00:00:00 UTC"
    assert written["tables"][0]["rows"] == [["pitch\x1b[31m", 0.5], ["key", None]]
    page = paths[1].read_text()
    assert "Is &lt;b&gt;it&lt;/b&gt; so?" in page
    assert "a&lt;/script&gt;b" in page
    assert "\x1b" not in page
    assert page.count("</script>") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_the_terminal_says_what_does_not_hold(capsys):
    from rich.console import Console

    failed = replace(OUTCOME, checks=(*OUTCOME.checks, Check("ill", False, "is not so")))
    assert OUTCOME.holds
    assert not failed.holds
    Console(width=100).print(outcome_tables(failed))
    said = capsys.readouterr().out
    assert "DOES NOT HOLD ill: is not so" in said
    assert "\x1b[31m" not in said
    assert "pitch\\x1b[31m" in said


def test_a_long_table_shows_its_ends(capsys):
    from rich.console import Console

    rows = tuple((number, f"row{number}") for number in range(100))
    Console(width=100).print(outcome_tables(replace(OUTCOME, tables=(ResultTable("Long", ("n", "name"), rows),))))
    said = capsys.readouterr().out
    assert "row11" in said and "row88" in said and "76 more" in said
    assert "row12 " not in said and "row87" not in said


def test_cells():
    assert [cell_text(cell, 2) for cell in (None, 1234, 0.125, 5.0, "x")] == ["–", "1,234", "0.12", "5.00", "x"]
