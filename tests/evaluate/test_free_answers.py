import json
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from mufun_jax.errors import UserError
from mufun_jax.evaluate.free_answers import MetricScore, measure_tasks, read_metrics
from mufun_jax.evaluate.report import metric_table, write_scores
from mufun_jax.evaluate.tasks import load_items
from mufun_jax.generate.answer import Answer, Finish

LINES = ("the rain falls down", "a road of stone", "nobody knows", "over the hill and far away")


class Oracle:
    """Stands for a model: hears the number of the song, and says what it is asked for in a sentence."""

    def __init__(self, finish: Finish = "stop"):
        self.finish: Finish = finish
        self.limits = {}

    def answer(self, questions, *, max_new_tokens):
        for question in questions:
            self.limits.setdefault(question.prompt.removeprefix("<audio>\n"), set()).add(max_new_tokens)
        return [Answer(self.reply(question.prompt, question.audio_files), self.finish, ()) for question in questions]

    def reply(self, prompt, files):
        if not files:
            return "I hear nothing."
        number = int(files[0].stem)
        return f"About {100 + 10 * number} BPM." if "tempo" in prompt else LINES[number % 4].upper()


@pytest.fixture
def items(tmp_path):
    """20 songs, of ten of which the tempo is asked too."""
    entries = []
    for number in range(20):
        (tmp_path / f"{number}.wav").write_bytes(b"x")
        answers = {"words": LINES[number % 4]} | ({"tempo": f"{100 + 10 * number} BPM"} if number < 10 else {})
        for task, answer in answers.items():
            turns = [{"from": "human", "value": f"<audio>\n{task}?"}, {"from": "gpt", "value": answer}]
            entries.append({"id": f"{number}-{task}", "audio": f"{number}.wav", "task": task, "conversations": turns})
    path = tmp_path / "heldout.json"
    path.write_text(json.dumps(entries))
    return load_items(path)


def test_one_that_hears_is_better_than_all_baselines(items, tmp_path):
    oracle, done = Oracle(), []
    metrics = read_metrics(["tempo=tempo", "words=lyrics:en"], items)
    scores = measure_tasks(oracle, items, metrics, progress=lambda *at: done.append(at))  # pyright: ignore[reportArgumentType]
    tempo, words = scores["tempo"], scores["words"]
    assert (tempo.score, tempo.interval, tempo.no_audio, tempo.n) == (
        1.0,
        (pytest.approx(0.66, abs=0.01), 1.0),
        0.0,
        10,
    )
    assert (tempo.figures["no_audio"]["unreadable"], tempo.figures["audio"]["unreadable"]) == (10.0, 0.0)
    assert tempo.wrong_audio < 0.5
    assert tempo.constant == 0.1, "always the first tempo: 110 BPM is 10 % away"
    assert (words.score, words.headline, words.metric) == (0.0, "wer", "lyrics:en")
    assert min(words.wrong_audio, words.no_audio, words.constant) > 0.3
    assert tempo.is_heard
    assert words.is_heard
    assert oracle.limits == {"tempo?": {64}, "words?": {1024}}
    assert done == sorted(done)
    assert done[-1] == (90, 90)

    console = Console(width=80, record=True)
    console.print(metric_table(scores))
    lines = {line.split()[0]: line.split()[1:] for line in console.export_text().splitlines() if line.strip()}
    assert lines["tempo"][:6] == ["accuracy_1↑", "10", "1.00", "0.66–1.00", "0.10", "0.00"]
    assert lines["words"][-3:] == ["0,", "0", "yes"]
    write_scores(tmp_path / "scores.json", {}, scores)
    written = json.loads((tmp_path / "scores.json").read_text())
    assert written["tasks"] == {}
    assert written["metrics"]["tempo"]["figures"]["audio"] == {
        "accuracy_1": 1.0,
        "accuracy_2": 1.0,
        "unreadable": 0.0,
        "cut_short": 0.0,
    }
    assert written["metrics"]["words"]["lower_is_better"] is True


def test_answers_that_the_limit_ended_are_counted(items):
    metrics = read_metrics(["tempo=tempo"], items)
    score = measure_tasks(Oracle("length"), items, metrics)["tempo"]  # pyright: ignore[reportArgumentType]
    assert score.figures["audio"]["cut_short"] == 10.0


def test_heard_only_where_the_interval_is_better_than_each_baseline():
    common: dict[str, Any] = {
        "metric": "m",
        "headline": "h",
        "n": 9,
        "score": 0.5,
        "interval": (0.4, 0.6),
        "figures": {},
    }
    baselines = ("constant", "no_audio", "wrong_audio")
    for lower, good, bad in ((True, 0.61, 0.6), (False, 0.39, 0.4)):
        values: dict[str, Any] = {**common, **dict.fromkeys(baselines, good), "lower_is_better": lower}
        assert MetricScore(**values).is_heard
        for baseline in baselines:
            worse: dict[str, Any] = {**values, baseline: bad}
            assert not MetricScore(**worse).is_heard


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["tempo"], r"--metric tempo: write TASK=METRIC, for instance key=key"),
        (["=tempo"], "write TASK=METRIC"),
        (["temp=tempo"], r"no task 'temp' \(did you mean 'tempo'\?\); there are tempo, words"),
        (["tempo=temp"], r"no metric 'temp' \(did you mean 'tempo'\?\)"),
        (["tempo=tempo", "tempo=key"], "task 'tempo' has the metric tempo already"),
        (["words=tempo"], "^0-words, metric tempo: the answer 'the rain falls down' is no tempo in beats a minute"),
    ],
)
def test_options_that_say_nothing(items, options, wrong):
    with pytest.raises(UserError, match=wrong):
        read_metrics(options, items)


def test_the_command_measures_what_it_is_told_to(run, tiny_checkpoint, tmp_path):
    """A task with a metric beside one without, by a model that says anything; the file has both."""
    rng, entries = np.random.default_rng(0), []
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", rng.normal(0, 0.1, 16_000), 16_000)
        for task, answer in (("tempo", f"{60 + 60 * number}"), ("pitch", "high")):
            turns = [{"from": "human", "value": f"<audio>\n{task}?"}, {"from": "gpt", "value": answer}]
            entries.append({"audio": f"{number}.wav", "task": task, "conversations": turns})
    manifest, out = tmp_path / "heldout.json", tmp_path / "scores.json"
    manifest.write_text(json.dumps(entries))
    arguments = ("evaluate", "--benchmark", manifest, "--checkpoint", tiny_checkpoint, "--out", out)
    code, text, _ = run(*arguments, "--metric", "tempo=tempo")
    assert code == 0
    assert "accuracy_1↑" in text
    written = json.loads(out.read_text())
    assert (list(written["tasks"]), list(written["metrics"])) == (["pitch"], ["tempo"])
    figures = written["metrics"]["tempo"]["figures"]["audio"]
    assert set(figures) == {"accuracy_1", "accuracy_2", "unreadable", "cut_short"}
    code, text, err = run(*arguments, "--metric", "pitch=key")
    assert code == 2
    assert "the answer 'high' is no major or minor key" in err
    assert err.count("\n") == 1
