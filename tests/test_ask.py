"""The forms of an answer, and long songs, on the command line."""

import json
import re

import jsonschema
import numpy as np
import pytest
import soundfile

SCHEMA = {"type": "object", "properties": {"key": {"enum": ["C", "D"]}}, "required": ["key"]}


@pytest.fixture
def song(tmp_path):
    path = tmp_path / "song.wav"  # 6 s, of which the model hears 4
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 6 * 16_000), 16_000)
    return path


@pytest.fixture
def ask(run, song, tiny_checkpoint):
    return lambda *options, question="Which?": run("ask", song, question, "--checkpoint", tiny_checkpoint, *options)


def test_an_answer_has_the_form_that_is_asked_for(ask, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    for form in (schema, json.dumps(SCHEMA)):
        code, out, _ = ask("--format", "json", "--schema", form)
        assert code == 0
        jsonschema.validate(json.loads(out), SCHEMA)
    code, out, _ = ask("--regex", r"[0-9]{2,3} BPM", "--temperature", 2)
    assert code == 0 and re.fullmatch(r"\d{2,3} BPM\n", out)
    code, out, _ = ask("--choice", "major", "--choice", "minor")
    assert code == 0 and out in ("major\n", "minor\n")


def test_what_is_streamed_is_what_json_holds_and_says_why_it_ended(ask):
    code, out, err = ask("--max-new-tokens", 6, "--temperature", 1, "--seed", 3)
    assert code == 0
    assert "note: cut off after 6 tokens; --max-new-tokens allows more" in err
    code, as_json, _ = ask("--max-new-tokens", 6, "--temperature", 1, "--seed", 3, "--json")
    answer = json.loads(as_json)
    assert answer["text"] == out.removesuffix("\n")
    assert (answer["finish"], len(answer["tokens"]), len(answer["log_probabilities"])) == ("length", 6, 6)
    stop = answer["text"][3:5]
    code, out, _ = ask("--max-new-tokens", 6, "--temperature", 1, "--seed", 3, "--stop", stop)
    assert out.removesuffix("\n") == answer["text"][: answer["text"].index(stop)].rstrip()


def test_long_songs(ask, song):
    code, _, err = ask("--max-new-tokens", 2)
    assert code == 0
    assert f"note: {song}: 4 s were heard, from 0 s on; the 2 s after that were not (--long window hears them" in err
    code, out, err = ask("--max-new-tokens", 2, "--long", "window")
    assert code == 0
    assert [line.split("]")[0] for line in out.splitlines()] == ["[0:00-0:04", "[0:04-0:06"]
    assert "were not" not in err
    code, _, err = ask("--max-new-tokens", 2, "--long", "all")
    assert code == 0
    assert f"warning: {song}: 6 s are heard at once, where the model has learned to hear 4 s" in err


def test_mistakes_of_forms(ask, tmp_path):
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    for options, words in (
        (("--regex", "a", "--choice", "b"), "--regex and --choice: an answer has one form"),
        (("--schema", "{}"), "--schema without --format json"),
        (("--format", "json", "--schema", "{no"), "the JSON schema is no JSON"),
        (("--format", "json", "--schema", tmp_path / "absent.json"), "absent.json: No such file"),
        (("--format", "json", "--schema", tmp_path / "bytes.json"), "is no text in UTF-8"),
        (("--format", "json", "--schema", '{"type": "colour"}'), "the answer's form cannot be used"),
        (("--regex", "("), "the answer's form cannot be used"),
        (("--regex", "[a-z]{50}", "--max-new-tokens", 3), "the answer was not complete after 3 tokens"),
        (("--regex", "a", "--long", "window"), "several passes give several answers"),
        (("--regex", "a", "--stop", "a"), "before its form is complete"),
    ):
        code, _, err = ask(*options)
        assert code == 2, options
        assert words in err.splitlines()[-1]
