"""The paper's two failure signatures, planted in synthetic results and looked for."""

from dataclasses import replace

import pytest

from mufun_jax.evaluate.benchmark_scores.scores import score_results
from mufun_jax.evaluate.benchmark_scores.signatures import acoustic_blindness, hallucinated_structure
from mufun_jax.evaluate.benchmark_scores.time_spans import TimeSpan, impossible, time_spans
from tests.evaluate.results import result_of, results

GROUPS = {"ly": "lyrics", "nsyn_pitch": "pitch", "ins": "instrument"}


def verdict(lyrics, pitch, instrument, *, questions=400, conditions=("audio", "text_only")):
    found = []
    for (name, group), skill in zip(GROUPS.items(), (lyrics, pitch, instrument), strict=True):
        found += results(
            "guess", {name: group}, questions=questions, songs=questions, skill=skill, conditions=conditions
        )
    return acoustic_blindness(score_results(found, [], benchmark="mucue", groups=GROUPS))


@pytest.mark.parametrize("conditions", [("audio",), ("audio", "text_only")])
def test_a_model_that_reads_lyrics_and_hears_nothing_is_blind(conditions):
    found = verdict(0.85, 0.0, 0.0, conditions=conditions)
    assert found.verdict == "seen"
    what = "without audio" if len(conditions) > 1 else "the best single letter"
    assert found.reason.count(what) == 3 and "pitch" in found.reason


def test_a_model_that_hears_is_not_blind():
    assert verdict(0.85, 0.6, 0.0).verdict == "not seen"
    assert verdict(0.85, 0.6, 0.6).verdict == "not seen"


def test_a_model_that_knows_nothing_is_not_called_blind():
    assert verdict(0.0, 0.0, 0.0).verdict == "not seen"


def test_few_questions_leave_it_undecided():
    assert verdict(0.85, 0.0, 0.0, questions=12).verdict == "undecided"


def test_without_the_groups_it_is_not_assessed():
    scores = score_results(results("oracle", {"ly": "lyrics"}), [], benchmark="mine", groups={"ly": "lyrics"})
    found = acoustic_blindness(scores)
    assert (found.verdict, found.reason) == ("not assessed", "the run has no questions of pitch and instrument")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The intro is 0:00-0:15.", [(0, 15)]),
        ("from 12.5 to 30.1 s", [(12.5, 30.1)]),
        ("12.5 s to 30.1 s", [(12.5, 30.1)]),
        ("12.5s - 30.1s: verse", [(12.5, 30.1)]),
        ("0:00 – 0:15 intro, 0:15 – 0:45 verse", [(0, 15), (15, 45)]),
        ("[00:01:02.5 --> 00:01:10]", [(62.5, 70)]),
        ("1:02:03 to 1:02:05", [(3723, 3725)]),
        ("between 10 and 20 seconds", [(10, 20)]),
        ("from 2 to 3 minutes", [(120, 180)]),
        ("30 seconds to 1 minute", [(30, 60)]),
        ("[12.5, 30.1]", [(12.5, 30.1)]),
        ("from 1:10 until 1:20, and 1:10 until 1:20 again", [(70, 80)]),
        ("75:30-76:00", [(4530, 4560)]),
        ("120 to 130 BPM", []),
        ("bars 4-8 in 4/4 time", []),
        ("It starts at 0:30.", []),
        ("12 sections", []),
        ("2 to 3 main themes", []),
        ("the 1960-1970s", []),
        ("", []),
    ],
)
def test_time_spans(text, expected):
    assert time_spans(text) == [TimeSpan(*map(float, pair)) for pair in expected]


def test_what_no_song_can_have():
    assert impossible([TimeSpan(0, 10), TimeSpan(10, 30.9)], 30, 1.0) == []
    assert impossible([TimeSpan(0, 31.5)], 30, 1.0) == ["0–31.5 s is past the end at 30 s"]
    assert impossible([TimeSpan(20, 10)], 30, 1.0) == ["20–10 s ends before it begins"]
    later_first = impossible([TimeSpan(10, 20), TimeSpan(0, 15)], 30, 1.0)
    assert later_first == ["10–20 s begins before the section before it ends, at 15 s"]
    assert impossible([TimeSpan(0, 11), TimeSpan(10, 20)], 30, 1.0) == []


def structure(*replies, prompt="Which sections are there?", group="structure"):
    return [
        replace(result_of("oracle", "salami", group, number, song=str(number)), reply=reply, prompt=prompt)
        for number, reply in enumerate(replies)
    ]


def test_sections_that_cannot_be_are_seen():
    found = hallucinated_structure(structure(*["intro 0:00-0:10, verse 0:10-0:50"] * 8, *["0:00-0:30"] * 12))
    assert found.verdict == "seen"
    assert "8 of 20 replies" in found.reason
    assert found.examples[0] == ("salami-0", "10–50 s is past the end at 30 s")


def test_a_song_that_was_cut_ends_where_it_really_does():
    cut = [replace(result, seconds_dropped=60.0) for result in structure(*["0:00-1:20"] * 20)]
    assert hallucinated_structure(cut).verdict == "not seen"


def test_sections_of_the_question_are_not_the_models():
    found = hallucinated_structure(structure("A. 0:00-2:00", prompt="Which? A. 0:00-2:00 B. 0:00-0:10"))
    assert (found.verdict, found.reason) == (
        "not assessed",
        "none of 1 replies to questions of structure tells of a section of its own",
    )


def test_one_slip_among_many_is_undecided():
    assert hallucinated_structure(structure("0:00-2:00", *["0:00-0:20"] * 99)).verdict == "undecided"


def test_only_questions_of_structure_with_the_song_count():
    other = structure("0:00-2:00", group="genre")
    silent = [replace(result, condition="silence") for result in structure("0:00-2:00")]
    assert hallucinated_structure(other + silent).verdict == "not assessed"
