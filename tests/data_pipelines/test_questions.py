"""Questions: the forms of training and held-out entries, letters that tell nothing, clips that are independent."""

import json
import re
from collections import Counter

import pytest
from scipy.stats import chisquare

from data_pipelines.keys import KEYS
from data_pipelines.manifest import read_manifest
from data_pipelines.questions import INSTRUCTION, LONGEST_CHOICES, TASKS, Questioner, phrasings
from data_pipelines.sources.data_set import Clip, Label, Split
from mufun_jax.errors import ManifestError

GENRES = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
INSTRUMENTS = tuple(f"instrument {number}" for number in range(20))
LABELS = (
    Label("genre", ("disco",), GENRES),
    Label("tempo", ("128",)),
    Label("key", ("Eb minor",), KEYS),
    Label("instruments", ("instrument 3", "instrument 17"), INSTRUMENTS),
    Label("meter", ("4/4",), ("3/4", "4/4")),
    Label("caption", ("A dark synthesizer over a fast beat.",)),
)
FOUR_OPTIONS = re.compile(r"(?:<audio>\n)?.*\? (A\. .+) \n(B\. .+) \n(C\. .+) \n(D\. .+)")


def clip(number=0, split: Split = "train", labels=LABELS, time=None):
    return Clip(f"clip-{number}", f"audio/{number}.wav", split, tuple(labels), time)


def turns_of(entries):
    for entry in entries:
        values = [message["value"] for message in entry["conversations"]]
        yield from zip(values[::2], values[1::2], strict=True)


def asked(count, split: Split = "test", labels=LABELS, seed=0):
    questioner = Questioner(seed, "songs")
    return [entry for number in range(count) for entry in questioner.entries_of(clip(number, split, labels))]


def task_of(question):
    bare = question.removeprefix("<audio>\n").removeprefix(INSTRUCTION)
    return next(task for task in TASKS if any(bare.startswith(phrasing) for phrasing in phrasings(task)))


def test_training_entries_ask_all_labels_in_changing_order():
    (entry,) = Questioner(0, "songs").entries_of(clip(time=(30.0, 60.0)))
    assert list(entry) == ["id", "audio", "time", "conversations", "task"]
    assert (entry["id"], entry["audio"], entry["time"]) == ("clip-0", "audio/0.wav", [30.0, 60.0])
    assert [message["from"] for message in entry["conversations"]] == ["human", "gpt"] * 6
    questions = [question for question, _ in turns_of([entry])]
    assert questions[0].startswith("<audio>\n")
    assert not any("<audio>" in question for question in questions[1:])
    orders = {tuple(task_of(question) for question, _ in turns_of([entry])) for entry in asked(50, "train")}
    assert len(orders) > 30
    assert all(sorted(order) == sorted(label.task for label in LABELS) for order in orders)
    assert "time" not in asked(1, "train")[0]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_entries_ask_one_thing_and_say_which(split):
    entries = asked(20, split)
    assert len(entries) == 20 * len(LABELS) == len({entry["id"] for entry in entries})
    for entry in entries:
        assert list(entry) == ["id", "audio", "conversations", "task"]
        assert entry["id"].endswith(f"-{entry['task']}")
        assert len(entry["conversations"]) == 2
        assert entry["conversations"][0]["value"].startswith("<audio>\n")
        assert task_of(entry["conversations"][0]["value"]) == entry["task"]


def test_held_out_forms_alternate():
    four = LABELS[:4]
    for number in range(20):
        questions = [
            question for question, _ in turns_of(Questioner(0, "songs").entries_of(clip(number, "test", four)))
        ]
        forms = [bool(FOUR_OPTIONS.fullmatch(question)) for question in questions]
        assert forms in ([True, False, True, False], [False, True, False, True])
    forms = [bool(FOUR_OPTIONS.fullmatch(question)) for question, _ in turns_of(asked(400, labels=LABELS[:1]))]
    assert 150 < sum(forms) < 250


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.task)
def test_answers(split, label):
    is_open = 0
    for question, answer in turns_of(asked(300, split, [label])):
        options = FOUR_OPTIONS.fullmatch(question)
        if options is None:
            is_open += 1
            assert answer == ", ".join(label.answers)
            continue
        letters = [option[:3] for option in options.groups()]
        texts = [option[3:] for option in options.groups()]
        assert letters == ["A. ", "B. ", "C. ", "D. "]
        assert answer in options.groups()
        assert [text for text in texts if text in label.answers] == [answer[3:]]
        assert len({text.casefold() for text in texts}) == 4
    assert is_open == 300 if label.task in ("meter", "caption") else 100 < is_open < 200


def test_either_answer_of_several_is_an_option():
    answers = {answer[3:] for _, answer in turns_of(asked(100, labels=[LABELS[3]])) if re.match("[A-D]", answer)}
    assert answers == {"instrument 3", "instrument 17"}


def test_small_pools_are_named_in_half_of_the_open_questions():
    for label in LABELS:
        questions = [q for q, _ in turns_of(asked(300, labels=[label])) if not FOUR_OPTIONS.fullmatch(q)]
        named = [q.partition(" (choose from: ")[2].removesuffix(")") for q in questions if "(choose from: " in q]
        if not 1 < len(label.pool) <= LONGEST_CHOICES:
            assert not named
            continue
        assert 0.35 < len(named) / len(questions) < 0.65
        assert {tuple(sorted(choices.split(", "))) for choices in named} == {tuple(sorted(label.pool))}
        assert len(set(named)) > 1, "in changing order"
    outside = [Label("genre", ("polka",), GENRES[:3])]
    assert {"polka" in q for q, _ in turns_of(asked(50, labels=outside)) if "(choose from: " in q} == {True}


def test_the_letter_is_uniform_and_does_not_hang_on_the_answer():
    letters = {}
    for question, answer in turns_of(asked(3000, labels=LABELS[:4])):
        if FOUR_OPTIONS.fullmatch(question):
            letters.setdefault(task_of(question), Counter())[answer[0]] += 1
    assert set(letters) == {"genre", "tempo", "key", "instruments"}
    for counts in letters.values():
        assert sum(counts.values()) > 1300
        assert chisquare([counts[letter] for letter in "ABCD"]).pvalue > 1e-4
    pairs = Counter()
    for number in range(3000):
        labels = [Label("genre", (GENRES[number % 2],), GENRES)]
        for question, answer in turns_of(Questioner(1, "songs").entries_of(clip(number, "test", labels))):
            if FOUR_OPTIONS.fullmatch(question):
                pairs[answer] += 1
    assert len(pairs) == 8
    assert chisquare([pairs[f"{letter}. {genre}"] for letter in "ABCD" for genre in GENRES[:2]]).pvalue > 1e-4


def test_some_questions_begin_as_the_benchmark_does():
    questions = [q for q, _ in turns_of(asked(200, labels=LABELS[:1])) if FOUR_OPTIONS.fullmatch(q)]
    instructed = sum(q.startswith(f"<audio>\n{INSTRUCTION}") for q in questions)
    assert 0.3 < instructed / len(questions) < 0.7


def test_the_same_seed_gives_the_same_bytes_and_another_other_ones():
    first, again, other = (json.dumps(asked(50, "train", seed=seed)) for seed in (7, 7, 8))
    assert first == again != other
    assert Questioner(7, "songs").entries_of(clip()) != Questioner(7, "tunes").entries_of(clip())
    pinned = Questioner(0, "songs").entries_of(clip(labels=LABELS[:1]))[0]["conversations"]
    # Written down, so that another machine, Python or order of imports cannot change them unseen.
    assert [message["value"] for message in pinned] == [
        "<audio>\nWhich of these genres fits this music? A. jazz \nB. metal \nC. disco \nD. pop",
        "C. disco",
    ]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_clip_does_not_hang_on_others(split):
    forwards, backwards = Questioner(0, "songs"), Questioner(0, "songs")
    numbers = list(range(30))
    one = {number: forwards.entries_of(clip(number, split)) for number in numbers}
    other = {number: backwards.entries_of(clip(number, split)) for number in reversed(numbers)}
    assert one == other
    alone = Questioner(0, "songs").entries_of(clip(5, split))
    assert alone == one[5]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_label_more_changes_no_other_answer_of_a_held_out_clip(split):
    """The form may change, as forms alternate; the letter and the options of a four-option question may not."""
    fewer = dict.fromkeys(turn for turn in turns_of(asked(30, split, LABELS[:3])) if FOUR_OPTIONS.fullmatch(turn[0]))
    more = dict.fromkeys(turn for turn in turns_of(asked(30, split, LABELS[:4])) if FOUR_OPTIONS.fullmatch(turn[0]))
    bare_fewer = {(question.removeprefix("<audio>\n"), answer) for question, answer in fewer}
    bare_more = {(question.removeprefix("<audio>\n"), answer) for question, answer in more}
    assert len(bare_fewer & bare_more) > 25
    if split != "train":
        assert bare_fewer <= bare_more


@pytest.mark.parametrize("split", ["train", "test"])
def test_entries_are_a_manifest(tmp_path, split):
    entries = [
        entry for number in range(20) for entry in Questioner(0, "s").entries_of(clip(number, split, time=(0.0, 9.5)))
    ]
    (tmp_path / "data.json").write_text(json.dumps(entries))
    examples = read_manifest(tmp_path / "data.json")
    assert [example.id for example in examples] == [entry["id"] for entry in entries]
    assert {example.segments for example in examples} == {((0.0, 9.5),)}
    named = [[entry["task"]] if isinstance(entry["task"], str) else entry["task"] for entry in entries]
    assert [list(example.tasks) for example in examples] == named
    for entry, tasks in zip(entries, named, strict=True):
        assert [task_of(question) for question, _ in turns_of([entry])] == tasks, "a name for each turn"


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_wordings_that_are_heard(task):
    wordings = phrasings(task)
    assert len(wordings) >= 5 and not any(set("{}\n") & set(wording) for wording in wordings)
    answers, pool = (("99",), ()) if task == "tempo" else (("one",), ("one", "two", "three", "four", "five"))
    heard = set()
    for question, _ in turns_of(asked(400, labels=[Label(task, answers, pool)])):
        heard |= {wording for wording in wordings if wording in question}
    assert heard == set(wordings)


def test_a_clip_without_labels_is_not_asked_about():
    assert Questioner(0, "songs").entries_of(clip(labels=())) == []
    assert Questioner(0, "songs").entries_of(clip(split="test", labels=())) == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [Label("genere", ("rock",))],
            r"no questions for the task 'genere' \(did you mean 'genre'\?\); there are genre,",
        ),
        ([Label("genre", ())], "clip-0: no answer for the task 'genre'"),
        ([Label("genre", (" ",))], "clip-0: ' ' cannot be an answer"),
        ([Label("genre", ("rock",), ("<audio>",))], "clip-0: '<audio>' cannot be an answer or an option of 'genre'"),
        ([Label("genre", ("rock",)), Label("genre", ("pop",))], "songs, clip-0: several labels of one task"),
        ([Label("tempo", ("120.5",))], "clip-0: a tempo must be whole beats a minute, not 120.5"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_that_cannot_be_asked(split, labels, message):
    with pytest.raises(ManifestError, match=message):
        Questioner(0, "songs").entries_of(clip(split=split, labels=labels))
