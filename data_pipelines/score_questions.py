"""Questions and answers about a clip: one closed set of short answers a task, a few phrasings each.

The wording is short because a nano model reads it; "(choose from: ...)" is the original's style.
"""

import random
from collections import Counter
from dataclasses import dataclass

from data_pipelines.score_pieces import DANCES, METERS

# One spelling a pitch class, the usual one of fiddle tunes; index 0 is C.
PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
# Answer word to General MIDI program, 0-based: eight that sound different in this soundfont, all in tune.
# The organ sounds its lower octave as loud as the written one; the soundfont's other organs sound their
# twelfth or fifteenth louder than either, which hides the pitch class.
INSTRUMENTS = {
    "piano": 0,
    "xylophone": 13,
    "organ": 16,
    "guitar": 24,
    "violin": 40,
    "trumpet": 56,
    "flute": 73,
    "vibraphone": 11,
}
# Beats a minute; no two stand near 1:2, so hearing half or double the beat does not give another answer.
TEMPOS = (70, 95, 125, 165)

TASKS = ("pitch", "instrument", "key", "tempo", "meter", "dance")
# Of songs that have sections.
STRUCTURE_TASKS = ("first_instrument", "last_instrument", "next_instrument", "sections", "return")
SECTIONS = (4, 5, 6, 7, 8)

# {choices} stands for all answers of the task in random order, {about} for the instrument of the clip that it asks of.
_PHRASINGS = {
    "pitch": ("Which note is this?", "What note do you hear?", "Name the note."),
    "instrument": (
        "Which instrument is this?",
        "What instrument plays?",
        "Name the instrument. (choose from: {choices})",
    ),
    "key": ("What key is this in?", "Which key do you hear?", "Name the key."),
    "tempo": (
        "What is the tempo? (choose from: {choices})",
        "How many beats a minute? (choose from: {choices})",
        "What is the tempo in BPM?",
    ),
    "meter": (
        "What is the meter? (choose from: {choices})",
        "Which time signature is this? (choose from: {choices})",
        "What is the time signature?",
    ),
    "dance": (
        "What dance is this? (choose from: {choices})",
        "Which kind of dance tune is this? (choose from: {choices})",
        "What kind of dance is it?",
    ),
    "first_instrument": ("Which instrument plays first?", "Name the first instrument. (choose from: {choices})"),
    "last_instrument": ("Which instrument plays last?", "Name the last instrument. (choose from: {choices})"),
    "next_instrument": (
        "Which instrument plays after the {about}?",
        "Name the instrument after the {about}. (choose from: {choices})",
    ),
    "sections": ("How many sections are there?", "How many tunes are played? (choose from: {choices})"),
    "return": ("Does the first tune return at the end?", "Does the first tune end it? (choose from: {choices})"),
}
_CHOICES = {
    "instrument": tuple(INSTRUMENTS),
    "tempo": tuple(str(tempo) for tempo in TEMPOS),
    "meter": METERS,
    "dance": DANCES,
    **dict.fromkeys(("first_instrument", "last_instrument", "next_instrument"), tuple(INSTRUMENTS)),
    "sections": tuple(map(str, SECTIONS)),
    "return": ("yes", "no"),
}


@dataclass(frozen=True)
class Labelled:
    """A rendered clip as the lists name it: its id, its audio path, the answer of every task it can ask.

    `about` is what `{about}` stands for in its questions.
    """

    id: str
    audio: str
    answers: dict[str, str]
    about: str = ""


def note_name(pitch: int) -> str:
    """A MIDI pitch with its octave, middle C (60) being C4."""
    return f"{PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


def key_name(tonic: int, mode: str) -> str:
    """A key as the answers spell it, such as Eb minor."""
    return f"{PITCH_CLASSES[tonic % 12]} {mode}"


def ask(task: str, rng: random.Random, about: str = "") -> str:
    """One of the task's phrasings, its choices shuffled."""
    phrasing = rng.choice(_PHRASINGS[task])
    choices = list(_CHOICES[task]) if task in _CHOICES else []
    rng.shuffle(choices)
    return phrasing.format(choices=", ".join(choices), about=about)


def _task_of(question: str) -> str:
    """The task that a question asks for; without a question it is a transcription."""
    for task, phrasings in _PHRASINGS.items():
        if any(question.startswith(phrasing.partition("{")[0]) for phrasing in phrasings):
            return task
    assert not question, question
    return "transcription"


def conversation(clip: Labelled, tasks: list[str], rng: random.Random) -> dict:
    """An entry with a turn a task, in this order; the audio stands before the first question only."""
    turns = []
    for task in tasks:
        sign = "" if turns else "<audio>\n"
        turns.append({"from": "human", "value": sign + ask(task, rng, clip.about)})
        turns.append({"from": "gpt", "value": clip.answers[task]})
    return {"id": clip.id, "audio": clip.audio, "conversations": turns}


def held_out_question(clip: Labelled, task: str, rng: random.Random) -> dict:
    """A one-turn entry that names its task, for a score a task."""
    entry = conversation(clip, [task], rng)
    return {"id": f"{clip.id}-{task}", "audio": clip.audio, "task": task} | {"conversations": entry["conversations"]}


def transcription(clip: Labelled, pitches: list[int]) -> dict:
    """The entry of the warmup stage: the audio, and the names of the notes in it."""
    names = " ".join(note_name(pitch) for pitch in pitches)
    turns = [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": names}]
    return {"id": f"{clip.id}-transcription", "audio": clip.audio, "conversations": turns}


def label_histogram(entries: list[dict]) -> dict[str, dict[str, int]]:
    """How often each answer of each task is asked for; a transcription counts by its number of notes."""
    counts: dict[str, Counter[str]] = {}
    for entry in entries:
        values = [turn["value"] for turn in entry["conversations"]]
        for question, answer in zip(values[::2], values[1::2], strict=True):
            task = _task_of(question.removeprefix("<audio>").strip())
            label = f"{len(answer.split())} notes" if task == "transcription" else answer
            counts.setdefault(task, Counter())[label] += 1
    return {task: dict(sorted(labels.items())) for task, labels in sorted(counts.items())}


def phrasings_of(task: str) -> list[str]:
    """Every phrasing of a task, with the choices in their usual order."""
    return [phrasing.format(choices=", ".join(_CHOICES.get(task, ()))) for phrasing in _PHRASINGS[task]]


def answers_of(task: str) -> tuple[str, ...]:
    """Every answer that a task can have."""
    if task == "pitch":
        return PITCH_CLASSES
    if task == "key":
        return tuple(key_name(tonic, mode) for tonic in range(12) for mode in ("major", "minor"))
    return _CHOICES[task]
