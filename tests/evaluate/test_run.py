import json
from pathlib import Path

import pytest

from mufun_jax.errors import ManifestError, UserError
from mufun_jax.evaluate.report import write_scores
from mufun_jax.evaluate.run import evaluate, other_songs, with_audio, without_audio
from mufun_jax.evaluate.tasks import load_items
from mufun_jax.generate.answer import Answer


class Oracle:
    """Stands for a model: answers what `reply` says of (prompt, files)."""

    def __init__(self, reply):
        self.reply = reply
        self.batch_sizes = set()

    def answer(self, questions, *, max_new_tokens):
        self.batch_sizes.add(len(questions))
        return [Answer(self.reply(q.prompt, q.audio_files), "stop", ()) for q in questions]


@pytest.fixture
def manifest(tmp_path) -> Path:
    """40 songs; pitch is high or low by the number of the song, of which three in four are low."""
    entries = []
    for number in range(40):
        (tmp_path / f"{number}.wav").write_bytes(b"x" * (number + 1))
        for task, answer in (("pitch", "high" if number % 4 == 0 else "low"), ("number", str(number))):
            turns = [{"from": "human", "value": f"<audio>\n{task}?"}, {"from": "gpt", "value": answer}]
            audio = f"{number}.wav"
            entries.append({"id": f"{number}-{task}", "audio": audio, "task": task, "conversations": turns})
    path = tmp_path / "heldout.json"
    path.write_text(json.dumps(entries))
    return path


def hears(prompt, files):
    if not files:
        return "low" if "pitch" in prompt else "?"
    number = int(files[0].stem)
    return ("high" if number % 4 == 0 else "low") if "pitch" in prompt else str(number)


def test_a_model_that_hears_is_told_from_one_that_does_not(manifest, tmp_path):
    oracle = Oracle(hears)
    done = []
    scores = evaluate(oracle, load_items(manifest), progress=lambda *at: done.append(at))  # pyright: ignore[reportArgumentType]
    pitch, number = scores["pitch"], scores["number"]
    assert (pitch.n, pitch.accuracy, pitch.majority, pitch.no_audio) == (40, 1.0, 0.75, 0.75)
    assert pitch.wrong_audio < 0.9
    assert (number.accuracy, number.wrong_audio, number.no_audio, number.majority) == (1.0, 0.0, 0.0, 1 / 40)
    assert oracle.batch_sizes == {32, 16}
    assert done[-1] == (240, 240)
    assert done == sorted(done)
    write_scores(tmp_path / "out" / "scores.json", scores)
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert written["tasks"]["pitch"] == {
        "n": 40,
        "accuracy": 1.0,
        "interval": [pytest.approx(pitch.interval[0]), 1.0],
        "majority": 0.75,
        "no_audio": 0.75,
        "wrong_audio": pitch.wrong_audio,
    }


def test_a_deaf_model_scores_the_same_in_every_condition(manifest):
    score = evaluate(Oracle(lambda prompt, files: "low"), load_items(manifest))["pitch"]  # pyright: ignore[reportArgumentType]
    assert score.accuracy == score.no_audio == score.wrong_audio == score.majority == 0.75


def test_the_other_song_is_never_the_same(manifest):
    items = load_items(manifest)["pitch"]
    others = other_songs(items)
    assert all(item.example.audio != other.example.audio for item, other in zip(items, others, strict=True))
    assert len({other.example.id for other in others}) == len(items)
    crowded = items[:3] * 10  # with so few songs, neighbours in any order are often on the same one
    assert all(a.example.audio != b.example.audio for a, b in zip(crowded, other_songs(crowded), strict=True))
    assert with_audio(items[0], others[0]).prompt == items[0].question
    assert without_audio(items[0]).prompt == "pitch?"
    with pytest.raises(UserError, match="one song only"):
        other_songs(items[:1])


def test_an_unknown_task_is_answered_with_the_nearest(manifest):
    with pytest.raises(UserError, match=r"no task 'pich' \(did you mean 'pitch'\?\)"):
        load_items(manifest, ["pich"])
    assert list(load_items(manifest, ["number"])) == ["number"]


def test_an_entry_that_no_evaluation_can_count(tmp_path):
    turns = [{"from": "human", "value": "Hm?"}, {"from": "gpt", "value": "yes"}]
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"id": "one", "conversations": turns}]))
    with pytest.raises(ManifestError, match="no field 'task'"):
        load_items(path)
    path.write_text(json.dumps([{"id": "one", "task": "t", "conversations": turns * 2}]))
    with pytest.raises(ManifestError, match="2 questions"):
        load_items(path)
