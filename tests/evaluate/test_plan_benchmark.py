"""`mufun plan --benchmark mucue`: what all questions take, on machines that are not there."""

import json

import pytest

CONFIG = ("--config", "configs/mufun_8b.py")


def test_all_questions_are_counted_and_more_tokens_take_longer(run):
    code, out, _ = run("plan", *CONFIG, "--benchmark", "mucue", "--json")
    found = json.loads(out)
    assert code == 0 and list(found) == ["v5e-8", "H100"]
    for machine in found.values():
        assert machine["questions"] == 16_463 and len(machine["sets"]) == 27
        assert machine["seconds"] == pytest.approx(sum(machine["sets"].values()))
        assert machine["seconds"] < machine["seconds_if_all_tokens_are_decoded"] < 8 * machine["seconds"]


def test_a_table_a_machine(run):
    code, out, _ = run("plan", *CONFIG, "--benchmark", "mucue")
    assert code == 0 and out.count("salami_cnt") == 2 and "v5e-8, int8 weights, 8 of 64 tokens decoded" in out


def test_neither_topology_nor_benchmark(run):
    code, _, err = run("plan", *CONFIG)
    assert code == 2 and "give --topology, for instance v5e:16x16, or --benchmark mucue" in err
