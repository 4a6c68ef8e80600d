"""Wording: answers are among the choices, the audio sign stands once, histograms count by task."""

import random

import pytest

from data_pipelines.score_questions import (
    INSTRUMENTS,
    TASKS,
    TEMPOS,
    Labelled,
    ask,
    conversation,
    held_out_question,
    key_name,
    label_histogram,
    note_name,
    transcription,
)

ANSWERS = {
    "pitch": "F#",
    "instrument": "organ",
    "key": "D minor",
    "tempo": "95",
    "meter": "6/8",
    "dance": "slip jig",
}
CLIP = Labelled("clip-1", "audio/clip-1.flac", ANSWERS)


@pytest.mark.parametrize("task", TASKS)
def test_phrasings_vary_and_name_every_choice_in_changing_order(task: str) -> None:
    rng = random.Random(0)
    questions = {ask(task, rng) for _ in range(200)}
    listed = [q.partition("(choose from: ")[2].rstrip(")").split(", ") for q in questions if "(" in q]
    if task in ("pitch", "key"):
        assert len(questions) == 3 and not listed
    else:
        assert len(questions) > 10, "the order of the choices changes"
        assert all(ANSWERS[task] in choices for choices in listed)
        assert len({tuple(sorted(choices)) for choices in listed}) == 1
    assert not any("{" in question for question in questions)


def test_only_the_first_turn_carries_the_audio() -> None:
    entry = conversation(CLIP, ["pitch", "instrument"], random.Random(0))
    turns = entry["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt", "human", "gpt"]
    assert turns[0]["value"].startswith("<audio>\n") and "<audio>" not in turns[2]["value"]
    assert [turns[1]["value"], turns[3]["value"]] == ["F#", "organ"]
    assert (entry["id"], entry["audio"]) == ("clip-1", "audio/clip-1.flac")


def test_held_out_entry_names_its_task() -> None:
    entry = held_out_question(CLIP, "dance", random.Random(0))
    assert (entry["id"], entry["task"]) == ("clip-1-dance", "dance")
    assert [turn["value"] for turn in entry["conversations"]][1:] == ["slip jig"]


def test_transcription_names_the_notes_with_their_octaves() -> None:
    turns = transcription(CLIP, [60, 66, 70, 71, 83])["conversations"]
    assert [turn["value"] for turn in turns] == ["<audio>", "C4 F#4 Bb4 B4 B5"]


def test_names() -> None:
    assert (note_name(59), note_name(69)) == ("B3", "A4")
    assert (key_name(3, "minor"), key_name(14, "major")) == ("Eb minor", "D major")


def test_no_tempo_is_within_a_tenth_of_another_its_half_or_double() -> None:
    assert len(INSTRUMENTS) == 8
    for one in TEMPOS:
        for other in TEMPOS:
            for factor in (0.5, 1.0, 2.0):
                assert (one, factor) == (other, 1.0) or abs(one * factor / other - 1) > 0.1


def test_histogram_counts_every_turn_under_its_task() -> None:
    rng = random.Random(0)
    entries = [conversation(CLIP, list(TASKS), rng) for _ in range(30)]
    assert label_histogram(entries) == {task: {ANSWERS[task]: 30} for task in sorted(TASKS)}
    assert label_histogram([transcription(CLIP, [60, 62])]) == {"transcription": {"2 notes": 1}}
