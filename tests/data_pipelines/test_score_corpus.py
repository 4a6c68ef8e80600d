"""The corpus as a whole, on a dozen tunes: same bytes on any number of workers, no tune on both sides."""

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import score_corpus
from data_pipelines.score_corpus import ScoreCorpusConfig, render_score_corpus
from data_pipelines.score_pieces import DUPLICATE_INTERVALS, Piece
from data_pipelines.score_render import soundfont_path
from mufun_jax.errors import UserError

TINY = ScoreCorpusConfig(
    pieces=12,
    train_notes=10,
    train_excerpts=6,
    train_songs=2,
    held_out_notes=4,
    held_out_excerpts=4,
    held_out_songs=1,
)
LISTS = ("train_transcription", "train_notes", "train_excerpts", "train_songs", "heldout", "heldout_songs")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("score") / "corpus"
    render_score_corpus(out, TINY, workers=1)
    return out


def entries(corpus: Path, name: str) -> list[dict]:
    return json.loads((corpus / f"{name}.json").read_text())


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_workers_write_the_same_bytes_as_one(corpus: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    report = render_score_corpus(
        tmp_path / "again", TINY, workers=2, progress=lambda done, total: calls.append((done, total))
    )
    assert hashes(tmp_path / "again") == hashes(corpus)
    assert len(hashes(corpus)) == 27 + len(LISTS) + 1
    assert calls[-1] == (39, 39), "12 pieces read and 27 clips rendered"
    assert calls == sorted(calls)
    assert report == json.loads((corpus / "report.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["again"], "nothing is left aside"


def test_another_seed_is_another_corpus(corpus: Path, tmp_path: Path) -> None:
    render_score_corpus(tmp_path / "other", replace(TINY, seed=1), workers=1)
    drawn = [score_corpus._draw_pieces(replace(TINY, seed=seed), map, lambda read: None)[0] for seed in (0, 1)]
    assert not {piece.name for piece in drawn[0]} & {piece.name for piece in drawn[1]}
    same = set(hashes(tmp_path / "other").items()) & set(hashes(corpus).items())
    assert not same


def test_every_entry_has_its_audio_and_every_audio_an_entry(corpus: Path) -> None:
    named = {entry["audio"] for name in LISTS for entry in entries(corpus, name)}
    assert named == {str(path.relative_to(corpus)) for path in corpus.rglob("*.flac")}
    for audio in named:
        info = soundfile.info(str(corpus / audio))
        assert (info.samplerate, info.channels, info.subtype, info.format) == (16000, 1, "PCM_16", "FLAC")
        shortest, longest = {"notes": (1.0, 2.8), "excerpts": (5.0, 9.6), "songs": (20.0, 39.0)}[audio.split("/")[1]]
        assert shortest <= info.duration <= longest
    ids = [entry["id"] for name in LISTS if name != "train_transcription" for entry in entries(corpus, name)]
    assert len(set(ids)) == len(ids)


def test_turns_and_tasks_of_each_list(corpus: Path) -> None:
    assert all(len(entry["conversations"]) == 4 for entry in entries(corpus, "train_notes"))
    assert all(len(entry["conversations"]) == 6 for entry in entries(corpus, "train_excerpts"))
    assert all(len(entry["conversations"]) >= 6 for entry in entries(corpus, "train_songs"))
    held_out = entries(corpus, "heldout") + entries(corpus, "heldout_songs")
    assert all(len(entry["conversations"]) == 2 for entry in held_out)
    tasks = {entry["task"] for entry in held_out}
    assert {"pitch", "instrument", "key", "tempo", "meter"} <= tasks
    assert all("task" not in entry for name in LISTS[:4] for entry in entries(corpus, name))
    report = json.loads((corpus / "report.json").read_text())
    assert report["entries"] == {name: len(entries(corpus, name)) for name in LISTS}
    assert report["config"] == asdict(TINY)
    assert sum(report["labels"]["train_notes"]["pitch"].values()) == TINY.train_notes


def test_transcription_agrees_with_the_pitch_answer(corpus: Path) -> None:
    written = {entry["audio"]: entry["conversations"][1]["value"] for entry in entries(corpus, "train_transcription")}
    for entry in entries(corpus, "train_notes"):
        answers = [turn["value"] for turn in entry["conversations"][1::2]]
        assert written[entry["audio"]].rstrip("0123456789") in answers


def test_no_tune_stands_on_both_sides() -> None:
    train, held_out, left_out = score_corpus._draw_pieces(replace(TINY, pieces=300), map, lambda read: None)
    assert (len(train), len(held_out)) == (250, 50)
    assert left_out["duplicate of another tune"] > 5
    seen = {passage for piece in train for passage in passages(piece)}
    assert not any(passage in seen for piece in held_out for passage in passages(piece))
    assert not {piece.name for piece in train} & {piece.name for piece in held_out}


def passages(piece: Piece) -> list[tuple[int, ...]]:
    count = len(piece.intervals) - DUPLICATE_INTERVALS + 1
    return [piece.intervals[i : i + DUPLICATE_INTERVALS] for i in range(count)]


def test_finished_corpus_is_returned_at_once(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_nothing() -> list:
        raise AssertionError("rendered again")

    monkeypatch.setattr(score_corpus, "read_tune_texts", read_nothing)
    before = hashes(corpus)
    assert render_score_corpus(corpus, TINY)["config"] == asdict(TINY)
    assert hashes(corpus) == before


def test_held_out_soundfont_plays_what_is_held_out_and_nothing_else(corpus: Path, tmp_path: Path) -> None:
    other = _bent_soundfont(tmp_path / "other.sf2")
    report = render_score_corpus(tmp_path / "corpus", TINY, workers=1, held_out_soundfont=other)
    before, after = hashes(corpus), hashes(tmp_path / "corpus")
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {path for path in before if "/heldout-" in path} | {"report.json"}
    assert report["soundfonts"]["train"]["name"] == "TimGM6mb.sf2"
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert report["soundfonts"]["heldout"] == {"name": "other.sf2", "sha256": digest}
    assert render_score_corpus(tmp_path / "corpus", TINY, held_out_soundfont=other) == report
    with pytest.raises(UserError, match="choose another folder, or delete it"):
        render_score_corpus(tmp_path / "corpus", TINY)


def _bent_soundfont(path: Path) -> Path:
    """The soundfont with its sample data bent a little, as another recording of the same instruments."""
    content = bytearray(soundfont_path().read_bytes())
    start = content.index(b"smpl") + 8
    length = int.from_bytes(content[start - 4 : start], "little")
    samples = np.frombuffer(content[start : start + length], np.int16)
    bent = np.sign(samples) * np.abs(samples.astype(np.float64)) ** 0.9
    content[start : start + length] = bent.astype(np.int16).tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("content", "said"), [(None, r"no soundfont .*fluid-soundfont-gm"), (b"RIFF0000WAVE", "sfbk")])
def test_held_out_soundfont_that_is_none_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    soundfont = tmp_path / "font.sf2"
    if content is not None:
        soundfont.write_bytes(content)
    with pytest.raises(UserError, match=said):
        render_score_corpus(tmp_path / "corpus", TINY, workers=1, held_out_soundfont=soundfont)
    assert not (tmp_path / "corpus").exists()


def test_folder_with_something_else_is_left_alone(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose another folder, or delete it"):
        render_score_corpus(corpus, replace(TINY, seed=5))
    (tmp_path / "letter.txt").write_text("Dear Sir")
    with pytest.raises(UserError, match="choose another folder, or delete it"):
        render_score_corpus(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_interrupted_corpus_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_score_corpus(tmp_path / "corpus", TINY, workers=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("music21", r"pip install 'mufun_jax\[score\]'"),
        ("pretty_midi", r"pip install 'mufun_jax\[score\]'"),
        ("tinysoundfont", "pip install --no-deps tinysoundfont"),
    ],
)
def test_missing_package_is_named_with_its_command(
    package: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find: Callable = importlib.util.find_spec
    for module in ("score_pieces", "score_render"):
        monkeypatch.setattr(f"data_pipelines.{module}.find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UserError, match=f"{package}.*{command}"):
        render_score_corpus(tmp_path / "corpus", TINY, workers=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"train_notes": 0}, {"held_out_share": 1.0}, {"pieces": 3}])
def test_impossible_counts_are_user_errors(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        render_score_corpus(tmp_path / "corpus", replace(TINY, **wrong), workers=1)


def test_too_many_pieces_say_how_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = score_corpus.read_tune_texts()[:30]
    monkeypatch.setattr(score_corpus, "read_tune_texts", lambda: list(texts))
    with pytest.raises(UserError, match=r"pieces is 40, but the collections hold \d+ usable tunes"):
        render_score_corpus(tmp_path / "corpus", replace(TINY, pieces=40), workers=1)
    assert list(tmp_path.iterdir()) == []


def test_workers_do_not_import_jax() -> None:
    code = "import sys, data_pipelines.score_corpus; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
