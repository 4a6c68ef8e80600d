import pytest

from mufun_jax.evaluate.metrics.timed_list import Timed, overlaps, read_timed

TWO = [Timed(0.0, 15.0, "intro"), Timed(15.0, 45.0, "verse")]


@pytest.mark.parametrize(
    "text",
    [
        "0:00-0:15 intro; 0:15-0:45 verse",
        "0:00 - 0:15: intro\n0:15 – 0:45: verse",
        "[0:00-0:15] intro\n[0:15-0:45] verse",
        "The sections are:\n- 0:00-0:15 intro.\n- 0:15-0:45 verse.\nThat is all I hear.",
        "intro (0:00-0:15), verse (0:15-0:45)",
        "intro: 0:00-0:15\nverse: 0:15-0:45",
        "0 15 intro\n15\t45\tverse",
        "0,15,intro\n15,45,verse",
        "0.0-15.0s intro; 15.0-45.0s verse",
        "intro 0-15, verse 15-45",
        "0:00:00-0:00:15 intro; 0:00:15 to 0:00:45 verse",
        '[[0, 15, "intro"], [15.0, 45, "verse"]]',
        '[{"start": 0, "end": 15, "label": "intro"}, {"start": 15, "end": 45, "label": "verse"}]',
        '```json\n[{"start": 0, "label": "intro"}, {"start": 15, "end": 45, "label": "verse"}]\n```',
        "0:00 intro, 0:15-0:45 verse",
    ],
)
def test_ways_to_write_the_same_list(text):
    assert read_timed(text) == TWO


def test_the_last_of_a_list_of_starts_is_open():
    assert read_timed("0:00 intro, 0:12 verse, 1:03 other") == [
        Timed(0.0, 12.0, "intro"),
        Timed(12.0, 63.0, "verse"),
        Timed(63.0, None, "other"),
    ]
    assert read_timed("0:00, 0:15") == [Timed(0.0, 15.0, ""), Timed(15.0, None, "")]
    assert read_timed("0:00 2nd verse; 0:12 12-bar blues") == [
        Timed(0.0, 12.0, "2nd verse"),
        Timed(12.0, None, "12-bar blues"),
    ]
    assert read_timed("0:00 soft, slow, 0:12 loud") == [Timed(0.0, 12.0, "soft, slow"), Timed(12.0, None, "loud")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know",
        "intro, verse",
        "verse 1, verse 2",
        "0:00-0:10 a 0:10-0:20 b",
        "0:00-0:10 a\nsomething 3 else",
        "0:10 a, 0:05 b",
        "0:10-0:05 a",
        "0:00 a, 0:00 b",
        "0 15 20 a",
        '[[0, 5, "a"], [0, 6, "b"]]',
        "0:00 " + "x" * 300,
        '[[0, 15, "intro"], [15, "verse"]]',
        '[[0, NaN, "intro"]]',
        '[[false, 15, "intro"]]',
        '{"start": 0}',
        "[" * 10_000,
        '[[0, 1e9, "a"]]',
    ],
)
def test_what_is_no_list_is_not_read_in_part(text):
    assert read_timed(text) is None


def test_overlapping_entries_are_read_and_told():
    assert overlaps(read_timed("0:00-0:20 a; 0:15-0:30 b") or [])
    assert not overlaps(TWO)


def test_reading_long_texts_takes_no_time():
    assert read_timed("x" + " " * 100_000 + "1") is None
    assert read_timed("1 " * 50_000) is None
    assert len(read_timed("; ".join(f"{second} a" for second in range(10_000))) or []) == 10_000
    assert read_timed("; ".join(f"{second} a" for second in range(10_001))) is None
