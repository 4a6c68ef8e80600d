"""`mufun tag`: a row for every song, whatever happens to the others, and none twice."""

import csv
import json
import shutil

import jsonschema
import numpy as np
import pytest
import soundfile

from mufun_jax import tag_command
from mufun_jax.generate.tags import MOST_TOKENS, TAGS
from mufun_jax.tag_command import TagTable

FIELDS = ("--fields", "key,tempo")
COLUMNS = ["file", "key", "tempo", "seconds_used", "seconds_dropped"]


@pytest.fixture
def songs(tmp_path, tiny_corpus):
    """Three songs, one of them in a folder of its own, something that is no audio, and something that only says so."""
    folder = tmp_path / "songs"
    (folder / "more").mkdir(parents=True)
    for number, place in enumerate(("b.wav", "a.WAV", "more/c, d.wav")):
        shutil.copy(tiny_corpus / f"notes{number}.wav", folder / place)
    (folder / "cover.jpg").write_bytes(b"no audio, and not asked for")
    (folder / "broken.mp3").write_bytes(bytes(range(256)) * 20)
    return folder


def rows_of(path) -> list[dict]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["tags.csv", "out/tags.jsonl"])
def test_every_song_gets_a_row_and_a_bad_file_stops_none(run, tiny_checkpoint, songs, tmp_path, name):
    out = tmp_path / name
    code, said, err = run("tag", songs, "-o", out, *FIELDS, "--checkpoint", tiny_checkpoint)
    assert code == 1
    assert err.splitlines()[-1].startswith(f"error: {songs}/broken.mp3: cannot be decoded")
    assert said == f"3 of 4 files are in {out}\n"
    rows = rows_of(out)
    assert [row["file"] for row in rows] == [f"{songs}/{name}" for name in ("a.WAV", "b.wav", "more/c, d.wav")]
    for row in rows:
        assert list(row) == COLUMNS
        jsonschema.validate(row["key"], TAGS["key"])
        jsonschema.validate(int(row["tempo"]), TAGS["tempo"])
        assert float(row["seconds_used"]) == 1.0


def test_run_again_it_goes_on_where_it_stopped(run, tiny_checkpoint, songs, tmp_path, monkeypatch):
    """Killed in the middle of a line, it writes that line again and no other."""
    out = tmp_path / "tags.csv"
    (songs / "broken.mp3").unlink()
    assert run("tag", songs, "-o", out, *FIELDS, "--checkpoint", tiny_checkpoint)[0] == 0
    whole = out.read_bytes()
    lines = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3]) + lines[3][:9])
    asked = []
    describe = tag_command.describe

    def counted(model, files, *rest):
        asked.extend(file.name for file in files)
        return describe(model, files, *rest)

    monkeypatch.setattr(tag_command, "describe", counted)
    assert run("tag", songs, "-o", out, *FIELDS, "--checkpoint", tiny_checkpoint)[0] == 0
    assert (out.read_bytes(), asked) == (whole, ["c, d.wav"])
    assert run("tag", songs, "-o", out, *FIELDS, "--checkpoint", tiny_checkpoint)[:2] == (
        0,
        f"3 of 3 files are in {out}\n",
    )
    assert asked == ["c, d.wav"], "all are there: the model is not even loaded"


def test_all_tags_follow_their_schema(run, tiny_checkpoint, songs, tmp_path):
    out = tmp_path / "tags.jsonl"
    assert run("tag", songs / "b.wav", "-o", out, "--checkpoint", tiny_checkpoint)[0] == 0
    (row,) = rows_of(out)
    assert list(row) == ["file", *TAGS, "seconds_used", "seconds_dropped"]
    for name, schema in TAGS.items():
        jsonschema.validate(row[name], schema)


def test_the_longest_tags_fit_the_token_limit():
    """Each token gives a byte at least, and the tags of a song are mostly of ASCII."""
    longest = {
        name: {"enum": "C# major", "integer": 300, "array": ["x" * 32] * 5}.get(
            "enum" if "enum" in schema else schema["type"], "x" * schema.get("maxLength", 0)
        )
        for name, schema in TAGS.items()
    }
    for name, schema in TAGS.items():
        jsonschema.validate(longest[name], schema)
    assert len(json.dumps(longest)) < 0.75 * MOST_TOKENS


def test_cells_are_one_line_and_text_cannot_break_the_table(tmp_path):
    table = TagTable(tmp_path / "tags.csv", ["mood", "lyrics"])
    row = {"file": 'a "b",c.wav', "mood": ["sad", " slow "], "lyrics": 'one\ntwo, "three"\r\nfour', "seconds_used": 1.0}
    table.add({**row, "seconds_dropped": 0.0})
    (read,) = rows_of(tmp_path / "tags.csv")
    assert read["file"] == row["file"]
    assert (read["mood"], read["lyrics"]) == ("sad; slow", 'one / two, "three" / four')
    assert TagTable(tmp_path / "tags.csv", ["mood", "lyrics"]).done == {row["file"]}


def test_mistakes_of_tag(run, tiny_checkpoint, songs, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("name,age\nx,3\n")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"file": "a"}\nnot json\n')
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    (tmp_path / "nothing").mkdir()
    for arguments, words in (
        ((songs, "-o", tmp_path / "tags.txt"), "tags.txt: write a .csv or a .jsonl file"),
        ((songs, "-o", other), "other.csv: is there, with columns name, age"),
        ((songs, "-o", lines), "lines.jsonl, line 2: is no row of tags"),
        ((tmp_path / "absent", "-o", tmp_path / "t.csv"), "absent: is not there"),
        ((tmp_path / "nothing", "-o", tmp_path / "t.csv"), "no audio files here"),
        ((songs, "-o", tmp_path / "t.csv", "--fields", "key,colour"), "colour is no tag; there are genre, mood"),
        ((songs, "-o", tmp_path / "u.csv", "--checkpoint", tmp_path / "absent"), "absent"),
    ):
        code, out, err = run("tag", *arguments)
        assert (code, out) == (2, ""), arguments
        assert words in err
        assert err.count("\n") == 1
    code, _, err = run("tag", tmp_path / "short.wav", "-o", tmp_path / "v.csv", "--checkpoint", tiny_checkpoint)
    assert code == 1
    assert "only 0.00625 s" in err
