"""The command line as a user meets it: every mistake is one line, exit code 2, no traceback."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mufun_jax import cli
from mufun_jax.train.curriculum import train_curriculum
from tests.parity.reference_model import ReferenceModel
from tests.released_folder import (
    released_tensors,
    small_model,
    write_qwen3,
    write_released,
    write_stage,
    write_whisper,
)
from tests.train.tiny_run import tiny_run


@pytest.fixture(scope="module")
def checkpoint(tiny_corpus, tmp_path_factory):
    return train_curriculum(tiny_run(tiny_corpus, "curriculum=('align',)"), tmp_path_factory.mktemp("run"))


def one_line(err: str) -> str:
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err


@pytest.mark.parametrize(
    ("suffix", "rate", "channels"),
    [
        ("wav", 22_050, 2),
        ("flac", 96_000, 6),
        ("ogg", 44_100, 2),
        ("mp3", 32_000, 1),
        ("aiff", 8_000, 1),
        ("OPUS", 48_000, 2),
    ],
)
def test_ask_takes_any_format_rate_and_channel_count(run, checkpoint, tmp_path, suffix, rate, channels):
    song = tmp_path / f"song.{suffix}"
    samples = np.random.default_rng(0).normal(0, 0.1, (rate * 3, channels)).astype(np.float32)
    opus = suffix == "OPUS"  # a suffix that says nothing to soundfile
    soundfile.write(song, samples, rate, format="OGG" if opus else None, subtype="OPUS" if opus else None)
    code, out, _ = run("ask", song, "High?", "--checkpoint", checkpoint, "--json", "--max-new-tokens", 4)
    assert code == 0
    answer = json.loads(out)
    assert set(answer) == {"text", "finish", "finished", "heard", "tokens", "log_probabilities"}
    assert answer["heard"][0]["windows"] == 3
    assert answer["heard"][0]["seconds_used"] == pytest.approx(3.0, abs=0.1)


def test_ask_says_what_it_did_not_hear(run, checkpoint, tiny_corpus, tmp_path):
    song, long = tiny_corpus / "songs0.wav", tmp_path / "long.wav"  # 5 s, what the tiny model hears, and twice that
    samples, rate = soundfile.read(song)
    soundfile.write(long, np.concatenate([samples, samples]), rate)
    code, out, err = run("ask", long, "High?", "--checkpoint", checkpoint, "--max-new-tokens", 4)
    assert code == 0
    assert "5 s were heard" in err
    assert "the 5 s after that were not" in err
    code, out, _ = run("ask", song, "High?", "--checkpoint", checkpoint, "--segment", 1, 2.5, "--json")
    heard = json.loads(out)["heard"][0]
    assert (heard["start"], heard["seconds_used"], heard["windows"]) == (1.0, 1.0, 1)
    assert heard["seconds_dropped"] == 0.5


def test_ask_takes_several_songs(run, checkpoint, tiny_corpus):
    songs = [tiny_corpus / "notes0.wav", tiny_corpus / "notes1.wav"]
    code, out, _ = run("ask", *songs, "<audio> <audio> Same?", "--checkpoint", checkpoint, "--json")
    assert code == 0
    assert [Path(heard["file"]) for heard in json.loads(out)["heard"]] == songs


def test_mistakes_of_ask(run, checkpoint, tiny_corpus, tmp_path):
    song = tiny_corpus / "notes0.wav"
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "noise.mp3").write_bytes(bytes(range(256)) * 20)
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(tmp_path / "long.flac", np.zeros(8_000 * 3_700, np.int16), 8_000)
    for arguments, words in (
        ((tmp_path / "absent.wav", "High?"), ("absent.wav",)),
        ((tmp_path / "empty.wav", "High?"), ("empty.wav", "empty")),
        ((tmp_path / "noise.mp3", "High?"), ("noise.mp3",)),
        ((tmp_path / "nan.wav", "High?"), ("nan.wav",)),
        ((tmp_path / "long.flac", "High?"), ("long.flac", "3700")),
        ((tmp_path, "High?"), (str(tmp_path),)),
        ((song, " "), ("question is empty",)),
        (("High?",), ("no song given",)),
        ((song, song, "<audio> High?"), ("1 <audio> but 2",)),
        ((song, "<audio> <audio> High?"), ("2 <audio> but 1",)),
        ((song, "High?", "--segment", "9", "10"), ("notes0.wav", "9")),
        ((song, "High?", "--top-p", "2"), ("top_p 2.0",)),
    ):
        code, out, err = run("ask", *arguments, "--checkpoint", checkpoint)
        assert code == 2, arguments
        assert out == ""
        for word in words:
            assert word in one_line(err), err
    code, _, err = run("ask", song, "High?", "--checkpoint", tmp_path / "nowhere")
    assert code == 2
    assert "nowhere: no model here" in one_line(err)


def test_mistakes_of_train_and_evaluate(run, checkpoint, tiny_corpus, tmp_path):
    tiny_run(tiny_corpus)  # writes tiny.py
    config = tiny_corpus / "tiny.py"
    for arguments, words in (
        (("train", "--config", tmp_path / "nano.py"), "nano.py: no such config file"),
        (("train", "--config", config, "--set", "stages.algn.steps=1"), "'algn' (did you mean 'align'?)"),
        (("train", "--config", config, "--set", "sed=1"), "'sed' (did you mean 'seed'?)"),
        (("train", "--config", config, "--set", "data=nowhere"), "nowhere/notes is no prepared set"),
    ):
        code, _, err = run(*arguments, "--workdir", tmp_path / "run")
        assert code == 2, err
        assert words in err.splitlines()[-1]
    manifest = tiny_corpus / "questions.json"
    turns = [{"from": "human", "value": "<audio>\nHigh?"}, {"from": "gpt", "value": "low"}]
    items = [{"id": f"{i}", "audio": f"notes{i}.wav", "task": "pitch", "conversations": turns} for i in range(4)]
    manifest.write_text(json.dumps(items))
    code, _, err = run("evaluate", "--benchmark", manifest, "--checkpoint", checkpoint, "--task", "pich")
    assert code == 2
    assert "did you mean 'pitch'" in one_line(err)
    scores = tmp_path / "scores.json"
    code, out, _ = run("evaluate", "--benchmark", manifest, "--checkpoint", checkpoint, "--out", scores)
    assert code == 0
    assert "pitch" in out
    assert json.loads(scores.read_text())["tasks"]["pitch"]["n"] == 4
    items[0]["conversations"] = turns[:1]
    manifest.write_text(json.dumps(items))
    code, _, err = run("evaluate", "--benchmark", manifest, "--checkpoint", checkpoint)
    assert code == 2
    assert "questions.json, entry 1 (0): the last question has no answer" in one_line(err)


def test_debug_shows_the_traceback(run, checkpoint, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["mufun", "ask", "absent.wav", "High?", "--checkpoint", str(checkpoint), "--debug"]
    )
    with pytest.raises(ValueError, match=r"absent\.wav"):
        cli.main()


def test_help_teaches_and_does_not_wait_for_jax():
    code = (
        "import sys; from mufun_jax import cli; assert 'jax' not in sys.modules; "
        "sys.argv = ['mufun', '--help']; cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for word in ("demo", "prepare", "train", "evaluate", "ask", "convert"):
        assert word in result.stdout


# --- prepare ---------------------------------------------------------------------------------------------------------


def test_prepare_says_what_it_made_and_goes_on(run, tiny_corpus, tmp_path):
    arguments = ("prepare", tiny_corpus / "notes.json", "--out", tmp_path / "out", "--workers", "1", "--audio", "int16")
    code, out, err = run(*arguments)
    assert code == 0, err
    assert re.search(r"notes +train +1 +12 +0\.00 +0 +0 +0", out), out
    assert "Preparing" in err
    shard = next((tmp_path / "out/notes/1.0.0").glob("*.array_record-*"))
    before = shard.stat().st_mtime_ns
    assert run(*arguments)[0] == 0
    assert shard.stat().st_mtime_ns == before


def test_mistakes_of_prepare(run, tiny_corpus, tmp_path):
    manifest, out = tiny_corpus / "notes.json", ("--out", tmp_path / "out", "--workers", "1")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"id": "x", "audio": "https://a.b/c.wav"}) + "\n")
    for arguments, words in (
        (out, "nothing to prepare: name a manifest"),
        ((tmp_path / "absent.json", *out), "absent.json: no such manifest"),
        (("gtzn:x", *out), "did you mean 'gtzan'?"),
        (("gtzan", *out), "write gtzan:FOLDER"),
        ((bad, *out), "1 of 1 examples are bad (100.00%"),
        ((bad, *out, "--strict"), "is a URL; download it and name the file (--strict: it stops at the first)"),
        ((manifest, *out, "--shard-size", "lots"), "--shard-size lots: write a size"),
        ((manifest, *out, "--beam", "runer=x"), "did you mean 'runner'?"),
        ((manifest, *out, "--evaluation", tmp_path / "no.json"), "no.json: no such manifest"),
        (("--tfds", "gtzam", *out), "no export of 'gtzam' (did you mean 'gtzan'?)"),
        (("score-corpus", "--out", "gs://bucket/x"), "score-corpus writes audio files there first"),
        (("x.json", "--held-out-soundfont", "x.sf2", *out), "--held-out-soundfont is for score-corpus, which is not"),
        (("score-corpus", "--held-out-soundfont", "none.sf2", *out), "no soundfont none.sf2; Debian's"),
    ):
        code, _, err = run("prepare", *arguments)
        assert code == 2, (arguments, err)
        assert words in err.splitlines()[-1]
        assert "Traceback" not in err


# --- convert ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    return ReferenceModel(small_model())


def test_convert_there_and_back(run, reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    code, out, err = run("convert", "from-hf", source, tmp_path / "ours", "--max-shard-size", "50KB")
    assert code == 0, err
    count = len(released_tensors(reference))
    assert out == f"{count} tensors, 0.00 GB, in {tmp_path / 'ours'}\n"
    assert f"{count} of {count} tensors" in " ".join(err.split())
    assert len(list((tmp_path / "ours").glob("*.safetensors"))) > 2
    options = ("--layout", "transformers", "--dtype", "bfloat16", "--license", "mit")
    code, out, err = run("convert", "to-hf", tmp_path / "ours", tmp_path / "parts", *options)
    assert code == 0, err
    parts = [tmp_path / "parts" / name for name in ("whisper_encoder", "qwen3", "connector")]
    again = ("--whisper", parts[0], "--qwen3", parts[1], "--connector", parts[2], tmp_path / "again")
    code, out, err = run("convert", "from-hf", *again)
    assert code == 0, err
    code, out, _ = run("convert", "inspect", tmp_path / "again", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["parameters"] == sum(value.numel() for value in released_tensors(reference).values())
    assert {part["dtypes"][0] for part in found["parts"].values()} == {"bfloat16"}
    assert len(found["tensors"]) == count


def test_inspect_every_kind(run, reference, tmp_path):
    folders = {
        "model folder": write_released(tmp_path / "released", reference),
        "stage folders": write_stage(tmp_path / "stage", reference),
        "encoder folder": write_whisper(tmp_path / "whisper", reference),
        "decoder folder": write_qwen3(tmp_path / "qwen3", reference),
    }
    for kind, folder in folders.items():
        code, out, err = run("convert", "inspect", folder, "--tensors")
        assert code == 0, err
        assert out.startswith(f"{folder}: {kind}, "), out
        assert "each has its place" in out.splitlines()[0]
        assert ("encoder.layers.query.kernel" in out) == (kind != "decoder folder")
        assert ("decoder.layers.gate.kernel" in out) == (kind != "encoder folder")


def test_mistakes_of_convert(run, reference, tmp_path):
    source = write_released(tmp_path / "source", reference)
    whisper, qwen3 = write_whisper(tmp_path / "whisper", reference), write_qwen3(tmp_path / "qwen3", reference)
    target = tmp_path / "target"
    (tmp_path / "scores.json").write_text("{}")
    for arguments, words in (
        (("from-hf", tmp_path / "absent", target), "absent: no model here"),
        (("from-hf", target), "1 folders given: give SRC and DST"),
        (("from-hf", source, target, target), "3 folders given: give SRC and DST"),
        (("from-hf", "--whisper", whisper, target), "--whisper and --qwen3 go together"),
        (("from-hf", source, target, "--whisper", whisper, "--qwen3", qwen3), "only DST goes with --whisper"),
        (("from-hf", source, target, "--connector", source), "--connector goes with"),
        (
            ("from-hf", "--whisper", qwen3, "--qwen3", qwen3, target),
            "qwen3: no encoder here: missing: the tensor conv1",
        ),
        (("from-hf", "--whisper", whisper, "--qwen3", whisper, target), "no decoder here: missing"),
        (("from-hf", qwen3, target), "no MuFun model (model_type 'qwen3'"),
        (("from-hf", source, source), "is there already"),
        (("from-hf", source, target, "--taps", "0;7"), "--taps 0;7: write the layers as numbers"),
        (("from-hf", source, target, "--taps", "0,7"), "must rise and end at the last layer, 4"),
        (("from-hf", source, target, "--max-shard-size", "large"), "--max-shard-size large: write a size"),
        (("to-hf", source, target, "--scores", tmp_path / "scores.json"), "scores are not those"),
        (("to-hf", source, target, "--scores", tmp_path / "none.json"), "none.json: no such file"),
        (("from-hf", source, "x" * 300), "x: "),
        (("inspect", tmp_path), "no model"),
        (("inspect", source / "config.json"), "config.json"),
    ):
        code, out, err = run("convert", *arguments)
        assert code == 2, (arguments, out, err)
        assert out == ""
        assert words in one_line(err), err
        assert not target.exists()


def test_markup_in_names_is_shown_as_it_is(run, reference, tmp_path):
    source = write_released(tmp_path / "a[red]b[", reference)
    code, out, err = run("convert", "from-hf", source, tmp_path / "to[/b]")
    assert code == 0, err
    assert "to[/b]" in out
    code, out, _ = run("convert", "inspect", tmp_path / "to[/b]")
    assert code == 0
    assert "a[red]b[" in out
