import json

import pytest

from data_pipelines.manifest import read_manifest
from mufun_jax.errors import ManifestError
from mufun_jax.text.conversation import Turn


def entry(**changes):
    return {
        "id": "one",
        "audio": "song.wav",
        "conversations": [
            {"from": "human", "value": "<audio>\nWhat key?"},
            {"from": "gpt", "value": "D major"},
        ],
    } | changes


def write(tmp_path, entries, name="data.json"):
    path = tmp_path / name
    lines = "\n".join(json.dumps(e) for e in entries) if name.endswith("l") else json.dumps(entries)
    path.write_text(lines)
    return path


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_reads_the_original_format(tmp_path, name):
    two = entry(
        id="two",
        audio=["a.wav", "b.wav"],
        time=[[0, 2.5], None],
        conversations=[{"from": "human", "value": "<audio><audio>Same?"}, {"from": "gpt", "value": "no"}],
    )
    first, second, third = read_manifest(write(tmp_path, [entry(), two, entry(time=[30.0, 60.0])], name))
    assert first.audio == (tmp_path / "song.wav",)
    assert first.segments == (None,)
    assert first.turns == (Turn("<audio>\nWhat key?", "D major"),)
    assert first.task is None
    assert second.audio == (tmp_path / "a.wav", tmp_path / "b.wav")
    assert second.segments == ((0.0, 2.5), None)
    assert third.segments == ((30.0, 60.0),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conversations": [{"from": "human", "value": "<audio>\nWhat key?"}]}, "has no answer"),
        (
            {"conversations": [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": "  "}]},
            "message 2 from 'gpt' has no text",
        ),
        ({"conversations": [{"from": "gpt", "value": "D"}]}, "message 1 must be from 'human'"),
        ({"conversations": "What key?"}, "must be a list"),
        ({"audio": ["a.wav", "b.wav"]}, "1 <audio> but 2 audio files"),
        ({"audio": None}, "1 <audio> but 0 audio files"),
        ({"audio": "../song.wav"}, "outside the manifest's folder"),
        ({"audio": "/etc/song.wav"}, "outside the manifest's folder"),
        ({"audio": "https://example.org/song.wav"}, "is a URL"),
        ({"audio": 3}, "must be a file name"),
        ({"time": [5, 5]}, "0 <= start < end"),
        ({"time": [-1, 5]}, "0 <= start < end"),
        ({"time": ["0", "5"]}, "0 <= start < end"),
        ({"time": [[0, 5], [5, 6]]}, "1 audio files but 2 times"),
        ({"conversation": []}, "unknown field 'conversation' (did you mean 'conversations'?)"),
    ],
)
def test_a_bad_entry_is_named_with_its_place(tmp_path, change, message):
    path = write(tmp_path, [entry(), entry(id="bad", **change)])
    with pytest.raises(ManifestError) as error:
        read_manifest(path)
    assert f"{path}, entry 2 (bad)" in str(error.value)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_bad_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(entry()) + '\n{"id": \n')
    with pytest.raises(ManifestError, match=r"line 2: not JSON"):
        read_manifest(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.wav").write_bytes(b"")
    (inside / "song.wav").symlink_to(tmp_path / "secret.wav")
    with pytest.raises(ManifestError, match="outside"):
        read_manifest(write(inside, [entry()]))


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r"no such manifest \(did you mean 'data.json'\?\)"):
        write(tmp_path, [entry()])
        read_manifest(tmp_path / "dat.json")
    with pytest.raises(ManifestError, match="JSON list"):
        read_manifest(write(tmp_path, {"a": 1}, "object.json"))
    with pytest.raises(ManifestError, match="holds no entry"):
        read_manifest(write(tmp_path, [], "empty.json"))
