import json
from dataclasses import replace

import pytest

from mufun_jax.errors import UserError
from mufun_jax.evaluate.results_file import ResultsFile, make_header, read_folder, read_results, results_path
from tests.evaluate.results import failed, results

HEADER = make_header(
    benchmark="mucue",
    model="mine",
    model_digest="m",
    questions_digest="q",
    sets=("disco",),
    conditions=("audio", "silence"),
    rotations=1,
    limit=None,
    max_new_tokens=64,
    dtype="bfloat16",
    quantize=None,
    judge_digest=None,
    host=0,
    hosts=1,
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "out" / "results.jsonl"
    file = ResultsFile(path, HEADER)
    file.add(results("oracle", questions=4))
    file.add([])
    return path


def test_what_is_written_is_read(path):
    odd = failed(replace(results("oracle", questions=5)[4], prompt="é\u2028\n\x00 ♯", reply="\ud83d\ude00"[:0]), "ä")
    nothing = replace(results("mute", questions=6)[5], log_probabilities=None)
    infinite = replace(results("mute", questions=7)[6], seconds_used=0.1 + 0.2)
    ResultsFile(path, HEADER).add([odd, nothing, infinite])
    found = read_results(path)
    assert found.header == HEADER
    assert found.results == (*results("oracle", questions=4), odd, nothing, infinite)
    assert read_folder(path.parent) == (HEADER, found.results, ())


def test_infinite_log_probabilities_are_kept(path):
    result = results("oracle", questions=5)[4]
    assert result.log_probabilities is not None
    first = replace(result.log_probabilities[0], letter=float("-inf"))
    ResultsFile(path, HEADER).add([replace(result, log_probabilities=(first, *result.log_probabilities[1:]))])
    last = read_results(path).results[-1].log_probabilities
    assert last is not None
    assert last[0].letter == float("-inf")


def test_a_torn_last_line_is_cut_off_and_nothing_else(path):
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in (last, last + 1, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert len(read_results(path).results) == 3
        assert path.read_bytes() == whole[:cut], "reading changes nothing"
        assert len(ResultsFile(path, HEADER).done) == 3
        assert path.read_bytes() == whole[:last]
    path.write_bytes(whole[:20])  # not even the first line
    assert ResultsFile(path, HEADER).done == set()
    assert path.read_bytes() == whole[: whole.index(b"\n") + 1]


def test_a_damaged_line_is_refused_with_its_number(path):
    lines = path.read_bytes().splitlines(keepends=True)
    values = json.loads(lines[2])
    for wrong, said in (
        (b"\0\0\0\n", "line 3: is not a result"),
        (lines[2][:50] + b"\n", "line 3: is not a result"),
        (json.dumps({**values, "gold": "1"}).encode() + b"\n", "line 3: is not a result: gold: "),
        (json.dumps({**values, "condition": "noise"}).encode() + b"\n", "line 3: is not a result: condition: "),
        (json.dumps({**values, "more": 1}).encode() + b"\n", "line 3: is not a result: it has 'more' too"),
        (json.dumps({k: v for k, v in values.items() if k != "seed"}).encode() + b"\n", "a result: seed: "),
        (lines[1], r"line 3: question 'disco-0' is answered in line 2 already"),
        (b"[" * 100_000 + b"\n", "line 3: is not a result"),
        (b"\n", "line 3: is not a result"),
    ):
        path.write_bytes(b"".join([*lines[:2], wrong, *lines[3:]]))
        for read in (read_results, lambda path: ResultsFile(path, HEADER)):
            with pytest.raises(UserError, match=said):
                read(path)


def test_a_file_without_its_first_line(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(UserError, match="line 1: is not the beginning of a run"):
        read_results(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="no line that says of what run it is"):
        read_results(path)
    path.write_bytes(lines[0].replace(b"results 1", b"results 9"))
    with pytest.raises(UserError, match="of the format 'mufun_jax results 9'"):
        read_results(path)


def test_a_run_with_other_settings_is_refused_with_what_differs(path):
    other = replace(HEADER, model="renamed", rotations=4, model_digest="n")
    said = r'model_digest "m" there and "n" here; rotations 1 there and 4 here\); give the same options'
    with pytest.raises(UserError, match=said):
        ResultsFile(path, other)
    assert len(ResultsFile(path, replace(HEADER, model="renamed")).done) == 4


def test_the_files_of_several_hosts(tmp_path):
    with pytest.raises(UserError, match="no results here"):
        read_folder(tmp_path)
    written = results("oracle", questions=6)
    for host in (0, 2):
        header = replace(HEADER, host=host, hosts=3)
        ResultsFile(results_path(tmp_path, host, 3), header).add(written[host : host + 2])
    header, found, absent = read_folder(tmp_path)
    assert (found, absent) == (tuple(written[:4]), (1,))
    assert header.hosts == 3
    other = results_path(tmp_path, 1, 3)
    ResultsFile(other, replace(HEADER, host=1, hosts=3, rotations=2))
    with pytest.raises(UserError, match=r"results\.1\.jsonl: is of another run \(rotations 2 there and 1 here\)"):
        read_folder(tmp_path)
    other.unlink()
    ResultsFile(other, replace(HEADER, host=1, hosts=3)).add(written[:1])
    with pytest.raises(UserError, match="'disco-0' is answered by another host already"):
        read_folder(tmp_path)
    other.rename(results_path(tmp_path, 7, 9))
    with pytest.raises(UserError, match=r"results\.7\.jsonl: is of host 1 of 3; it was renamed"):
        read_folder(tmp_path)
    results_path(tmp_path, 7, 9).unlink()
    ResultsFile(tmp_path / "results.jsonl", HEADER)
    with pytest.raises(UserError, match=r"has results.jsonl of one host and results.0.jsonl of several"):
        read_folder(tmp_path)
