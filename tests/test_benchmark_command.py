"""`mufun evaluate --benchmark NAME`, whole: with models that need no weights, and once with a real one."""

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from mufun_jax import benchmark_command
from mufun_jax.cli import app
from mufun_jax.evaluate.results_file import read_results
from tests.evaluate.fake_mufun import FakeMuFun, answers_of
from tests.evaluate.synthetic_mucue import SETS, write_mucue


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mucue")
    write_mucue(folder, layout="folder")
    return folder


@pytest.fixture
def fake(monkeypatch, data):
    """Puts a model in the place of those that are loaded; gives the paths that were."""
    loaded = []

    def put(kind):
        @contextmanager
        def loaded_model(checkpoint, dtype, quantize=None):
            loaded.append(checkpoint)
            yield FakeMuFun(kind, answers_of("mucue", data))

        monkeypatch.setattr(benchmark_command, "loaded_model", loaded_model)
        return loaded

    return put


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "MuFun-Fake"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def accuracies(out: Path) -> dict[str, float]:
    overall = json.loads((out / "report.json").read_text())["scores"]["overall"]
    return {way: accuracy["accuracy"] for way, accuracy in overall["average"].items()}


def test_the_path_from_a_folder_to_a_report(run, fake, data, model, tmp_path):
    loaded = fake("oracle")
    out = tmp_path / "out"
    arguments = ["evaluate", "--benchmark", "mucue", "--data", data, "--model", model, "--out", out]
    code, printed, _ = run(*arguments)
    assert code == 0, printed
    assert set(accuracies(out).values()) == {1.0}
    assert len(accuracies(out)) == 5
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "report.json", "report.md", "report.html"}
    assert "gtzan_key" in printed
    assert f"The report is in {out}" in printed.replace("\n", "")
    assert json.loads((out / "report.json").read_text())["model"] == "MuFun-Fake"
    before = (out / "results.jsonl").read_bytes()
    assert run(*arguments)[0] == 0
    assert (out / "results.jsonl").read_bytes() == before
    assert loaded == [str(model)], "nothing was left to ask"
    code, _, error = run(*arguments, "--rotations", "2")
    assert code == 2
    assert "rotations 1 there and 2 here" in error
    (model / "config.json").write_text("{ }")
    code, _, error = run(*arguments)
    assert (code, "model_digest" in error) == (2, True)


@pytest.mark.parametrize(("kind", "wanted"), [("mute", 0.0), ("always_b", None)])
def test_other_models(run, fake, data, model, tmp_path, kind, wanted):
    fake(kind)
    out = tmp_path / "out"
    options = ["--conditions", "audio,text_only", "--sets", "gs_key_30s,nsyn-pitch"]
    assert run("evaluate", "--benchmark", "mucue", "--data", data, "--model", model, "--out", out, *options)[0] == 0
    if wanted is None:
        results = [r for r in read_results(out / "results.jsonl").results if r.condition == "audio"]
        of_set = {name: [r.gold == 1 for r in results if r.set == name] for name in ("gs_key_30s", "nsyn_pitch")}
        wanted = sum(sum(right) / len(right) for right in of_set.values()) / 2
    assert all(accuracy == pytest.approx(wanted) for accuracy in accuracies(out).values())
    overall = json.loads((out / "report.json").read_text())["scores"]["overall"]
    assert overall["published_convention"] == (None if kind == "mute" else pytest.approx(wanted))


def test_several_hosts_and_one_report(run, fake, data, model, tmp_path):
    fake("oracle")
    out = tmp_path / "out"
    arguments = ["evaluate", "--benchmark", "mucue", "--data", data, "--model", model, "--out", out]
    for host in range(2):
        code, printed, _ = run(*arguments, "--host", host, "--hosts", 2, "--rows", 8)
        assert code == 0
        assert f"Host {host} of 2 is done" in printed
        if host == 0:
            assert run(*arguments, "--report-only")[0] == 1
            warnings = json.loads((out / "report.json").read_text())["warnings"]
            assert any("results.1.jsonl is not in" in warning for warning in warnings)
    assert run(*arguments, "--report-only")[0] == 0
    assert set(accuracies(out).values()) == {1.0}


def test_bad_rows_and_errors_end_with_1_and_are_named(run, fake, model, tmp_path):
    fake("oracle")
    data, out = tmp_path / "data", tmp_path / "out"
    write_mucue(data, layout="folder", sets={"gtzan_key": 7, "nsyn_pitch": 6})
    lines = (data / "gtzan_key.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"correct_choice": "E"})
    (data / "gtzan_key.jsonl").write_text("\n".join(lines) + "\n")
    arguments = ["evaluate", "--benchmark", "mucue", "--data", data, "--model", model, "--out", out]
    code, printed, _ = run(*arguments, "--conditions", "audio")
    assert code == 1
    assert "correct_choice" in printed
    (data / "audio" / "nsyn_pitch_0.wav").write_bytes(b"RIFF")
    assert run(*arguments[:-1], tmp_path / "again", "--conditions", "audio")[0] == 1
    report = json.loads((tmp_path / "again" / "report.json").read_text())
    assert [each["errors"] for each in report["scores"]["sets"]] == [0, 6] or "nsyn_pitch" in str(report["warnings"])
    assert sum(each["bad_rows"] for each in report["scores"]["sets"]) == 1


def test_a_judge_a_comparison_training_data_and_an_export(run, fake, data, model, tmp_path, monkeypatch):
    loaded = fake("oracle")
    monkeypatch.setattr(FakeMuFun, "chat", lambda self, text: "C", raising=False)
    judge = tmp_path / "judge"
    judge.mkdir()
    (judge / "config.json").write_text("[]")
    arguments = ["evaluate", "--benchmark", "mucue", "--data", data, "--model", model, "--conditions", "audio"]
    assert run(*arguments, "--out", tmp_path / "one")[0] == 0
    fake("always_b")
    (tmp_path / "song.wav").write_bytes((data / "audio" / "gtzan_key_0.wav").read_bytes())
    turns = [{"from": "human", "value": "<audio>\nHm?"}, {"from": "gpt", "value": "yes"}]
    manifest = tmp_path / "train.json"
    manifest.write_text(json.dumps([{"id": "one", "audio": "song.wav", "conversations": turns}]))
    code, printed, error = run(
        *arguments, "--out", tmp_path / "two", "--judge", judge, "--compare", tmp_path / "one",
        "--training", manifest, "--export", "lmms_eval",
    )  # fmt: skip
    assert code == 0, error
    assert loaded[1:] == [str(judge), str(model)]
    assert {result.judged for result in read_results(tmp_path / "two" / "results.jsonl").results} == {2}
    compared = json.loads((tmp_path / "two" / "comparison.json").read_text())
    assert compared["overall"]["n"] == sum(SETS.values())
    assert compared["overall"]["only_second"] == 0
    assert all(heading in printed for heading in ("both", "nei-", "Holm"))
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert any("1 song, of 6 questions, is in the training data" in warning for warning in report["warnings"])
    assert list((tmp_path / "two" / "lmms_eval").rglob("*.jsonl"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--benchmark", "mucu"], "no such benchmark (did you mean 'mucue'?)"),
        (["--benchmark", "mucue"], "needs --data, the folder it was downloaded to, and --out"),
        (["--benchmark", "mucue", "--data", ".", "--out", "x", "--conditions", "audio,noise"], "noise: is none"),
        (["--benchmark", "mucue", "--data", ".", "--out", "x", "--conditions", "silence"], "without 'audio'"),
        (["--benchmark", "mucue", "--data", ".", "--out", "x", "--sets", ","], "--sets ',': names nothing"),
        (["--benchmark", "mucue", "--data", ".", "--out", "x", "--export", "mmauu"], "did you mean 'mmau'?"),
        (["--benchmark", "mucue", "--data", ".", "--out", "x", "--compare", "nowhere"], "no results here"),
        (["--benchmark", "mucue", "--data", ".", "--out", "x", "--host", "1"], "host 1 of 1"),
        (["--benchmark", "mucue", "--data", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["--benchmark", "q.json", "--sets", "a", "--rotations", "4"], "--sets, --rotations: for a benchmark's name"),
        (["--benchmark", "mucue", "--task", "a", "--metric", "a=key"], "--task, --metric: for a manifest; of --bench"),
    ],
)
def test_mistakes_are_a_line(run, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("evaluate", "--model", "m", *arguments)
    assert code == 2
    assert said in error
    assert len(error.splitlines()) == 1


OF_BENCHMARKS = {
    "--quantize": "int8", "--data": ".", "--fetch": None, "--sets": "a", "--limit": "1", "--conditions": "audio",
    "--rotations": "1", "--judge": "m", "--compare": "o", "--training": "t", "--export": "mmau", "--rows": "32",
    "--report-only": None, "--host": "0", "--hosts": "1",
}  # fmt: skip
OF_MANIFESTS = {"--task": "key", "--metric": "key=key"}


@pytest.mark.parametrize(
    ("option", "value", "benchmark", "said"),
    [
        *((option, value, "questions.json", "a benchmark's name") for option, value in OF_BENCHMARKS.items()),
        *((option, value, "mucue", "a manifest") for option, value in OF_MANIFESTS.items()),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(run, option, value, benchmark, said):
    """Its default too: who writes it down means something by it."""
    given = [option] if value is None else [option, value]
    code, _, error = run("evaluate", "--model", "m", "--benchmark", benchmark, *given)
    assert (code, len(error.splitlines())) == (2, 1)
    assert f"{option}: for {said}" in error


def test_every_option_goes_with_both_or_is_refused_by_one():
    command = typer.main.get_group(app).commands["evaluate"]
    options = {option.opts[0] for option in command.params}
    assert options - {"--help"} == {"--benchmark", "--checkpoint", "--out", "--dtype", *OF_BENCHMARKS, *OF_MANIFESTS}


def test_a_real_model(run, tiny_checkpoint, data, tmp_path):
    out = tmp_path / "out"
    options = ["--sets", "gtzan_key", "--limit", "2", "--dtype", "float32"]
    arguments = ["evaluate", "--benchmark", "mucue", "--data", data, "--model", tiny_checkpoint, "--out", out]
    code, printed, error = run(*arguments, *options)
    assert code == 0, error
    results = read_results(out / "results.jsonl").results
    assert len(results) == 2 * 4
    for result in results:
        assert result.reply is not None
        assert result.log_probabilities is not None
        assert all(each.letter < 0 and each.text < 0 and each.text_tokens > 1 for each in result.log_probabilities)
        assert result.constrained in range(4)
        assert result.seconds_used == pytest.approx(
            {"text_only": 0.0, "silence": 4.0}.get(result.condition, 0.5), abs=0.4
        )
    assert "gtzan_key" in printed
    assert len({result.model_digest for result in results}) == 1
