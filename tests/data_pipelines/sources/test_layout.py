import pytest

from data_pipelines.sources.layout import base_of, beats_a_minute, first_line, found, optional, rows
from mufun_jax.errors import ManifestError


def test_the_first_candidate_that_is_there_is_taken(tmp_path):
    (tmp_path / "b" / "x").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    assert found(tmp_path, "a", "b", "c") == optional(tmp_path, "b", "c") == tmp_path / "b"
    assert optional(tmp_path, "a") is None
    with pytest.raises(ManifestError, match="holds no a and no d; unpack"):
        found(tmp_path, "a", "d")
    assert base_of(tmp_path, ("c", "b"), "x") == "b/"
    assert base_of(tmp_path, ("", "b"), "c") == ""
    with pytest.raises(ManifestError, match="no audio in y or b/y"):
        base_of(tmp_path, ("", "b"), "y")


def test_rows_carry_their_line(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes('\ufeffa,b\n\n1,"two\nlines"\n3,4\n'.encode())
    assert list(rows(table, ",")) == [(1, ["a", "b"]), (4, ["1", "two\nlines"]), (5, ["3", "4"])]
    assert list(rows(table, ",", quoted=False))[1] == (3, ["1", '"two'])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'a,b\n1,"2', "line 3: unexpected end of data"), (b"a,b\n1,\xff\n", "line 1: .*can't decode byte 0xff")],
)
def test_a_table_that_cannot_be_split_is_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"t\.csv, {message}"):
        list(rows(tmp_path / "t.csv", ","))
    with pytest.raises(ManifestError, match=r"u\.csv: no such file"):
        list(rows(tmp_path / "u.csv", ","))


def test_files_of_one_line(tmp_path):
    file = tmp_path / "a.bpm"
    file.write_text(" 127.6 \n\nmore\n")
    assert first_line(file) == "127.6"
    assert beats_a_minute(file) == "128"
    for text in ("fast", "nan", "inf", "0", "-60"):
        file.write_text(text)
        with pytest.raises(ManifestError, match=rf"a\.bpm, line 1: '{text}' is no tempo"):
            beats_a_minute(file)
    file.write_text("\n")
    with pytest.raises(ManifestError, match=r"a\.bpm, line 1: is empty"):
        first_line(file)
    file.write_bytes(b"\xff")
    with pytest.raises(ManifestError, match=r"a\.bpm, line 1: .*decode"):
        first_line(file)
