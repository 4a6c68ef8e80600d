"""Turns what is known of a clip into questions and answers, open or with four options.

Everything is drawn from a hash of the seed, the data set, the clip's id and the task. So a clip has the same questions
whatever other clips there are and in whatever order they come, and workers need not know of one another. The letter of
the right option is drawn the same way: A to D are equally likely and independent. (Dealing the letters in turn would
spread them exactly, but then each clip would hang on those before it.)
"""

import hashlib
import json
import random

from data_pipelines.options import OPTIONS, wrong_options
from data_pipelines.sources.data_set import Clip, Label
from mufun_jax.errors import ManifestError, nearest
from mufun_jax.text.conversation import AUDIO_PLACEHOLDER

# Precedes some four-option questions: the benchmark MuCUE asks all of its questions so.
INSTRUCTION = "Choose the correct option for the question based on the audio. "
# A pool of at most so many is listed in some of its open questions.
LONGEST_CHOICES = 16

_LETTERS = "ABCD"
# For each task its open questions, then those that four options follow.
_PHRASINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "genre": (
        ("What genre is this?", "Which genre does this music belong to?", "Name the genre of this music."),
        ("What is the genre of this music?", "Which of these genres fits this music?"),
    ),
    "genres": (
        ("What genres does this music belong to?", "Name the genres of this music.", "Which genres do you hear?"),
        ("Which of these genres does this music belong to?", "Which genre fits this music?"),
    ),
    "style": (
        ("What style is this played in?", "Which style of playing is this?", "Name the style of this music."),
        ("Which of these styles is this played in?", "What is the style of this music?"),
    ),
    "instrument": (
        ("Which instrument is this?", "What instrument plays?", "Name the instrument."),
        ("Which of these instruments is heard?", "Which instrument plays here?"),
    ),
    "instruments": (
        ("Which instruments play?", "What instruments do you hear?", "Name the instruments in this music."),
        ("Which of these instruments plays in this music?", "Which instrument can be heard in this music?"),
    ),
    "source": (
        (
            "How is the sound of the instrument made?",
            "What kind of source has this sound?",
            "Name the source of sound.",
        ),
        ("Which of these is the source of the sound?", "How is this sound made?"),
    ),
    "quality": (
        (
            "What qualities does this sound have?",
            "How would you describe this sound?",
            "Name the qualities of the note.",
        ),
        ("Which of these qualities does the sound have?", "Which word describes this sound?"),
    ),
    "mood": (
        ("What is the mood of this music?", "What mood or theme does this music have?", "Name the mood of this music."),
        ("Which of these moods or themes fits this music?", "Which mood does this music have?"),
    ),
    "tags": (
        ("Which tags describe this music?", "Describe this music with tags.", "Give tags for this music."),
        ("Which of these tags describes this music?", "Which tag fits this music?"),
    ),
    "vocal": (
        ("Is there singing?", "What voice do you hear?", "Is this sung, and by whom?"),
        ("Which of these is true of the voice?", "Which voice is heard?"),
    ),
    "key": (
        ("What key is this in?", "Which key do you hear?", "Name the key."),
        ("What is the key of this music?", "Which of these keys is this music in?"),
    ),
    "mode": (
        ("Is this in major or minor?", "What is the mode of this music?", "Name the mode."),
        ("Which of these modes is this music in?", "What is the mode of this music?"),
    ),
    "tempo": (
        ("What is the tempo in BPM?", "How many beats a minute does this have?", "Name the tempo in beats a minute."),
        ("What is the tempo of this music in BPM?", "How many beats a minute does this music have?"),
    ),
    "meter": (
        ("What is the meter?", "Which time signature is this?", "Name the time signature."),
        ("What is the time signature of this music?", "Which of these meters is this?"),
    ),
    "dance": (
        ("What dance is this?", "Which dance is this music for?", "Name the dance."),
        ("Which of these dances is this?", "What kind of dance is this music for?"),
    ),
    "pitch": (
        ("Which note is this, with its octave?", "What note do you hear, and in which octave?", "Name the note."),
        ("What is the pitch of this note?", "Which of these notes is this?"),
    ),
    "notes": (
        ("Which notes are played, in order?", "Write down the notes that you hear.", "Transcribe the notes."),
        ("Which of these is the order of the notes?", "Which notes are played?"),
    ),
    "chord": (
        ("Which chord is this?", "What chord do you hear?", "Name the chord."),
        ("Which of these chords is played?", "What chord is this?"),
    ),
    "chords": (
        ("Which chords are played, in order?", "Write down the chords.", "Transcribe the chord progression."),
        ("Which of these is the chord progression?", "Which chords are played?"),
    ),
    "section": (
        ("Which section of the piece is this?", "What part of the song is this?", "Name the section."),
        ("Which of these sections is this?", "Which part of the song is heard?"),
    ),
    "structure": (
        (
            "What is the structure of this piece?",
            "List the sections with their times.",
            "Describe the form of this song.",
        ),
        ("Which of these is the structure of this piece?", "Which form does this song have?"),
    ),
    "caption": (
        ("Describe this music.", "What do you hear? Describe it.", "Write a caption for this music."),
        ("Which of these describes this music?", "Which caption fits this music?"),
    ),
    "lyrics": (
        ("What are the lyrics?", "Write down the words that are sung.", "Transcribe the lyrics."),
        ("Which of these lines is sung?", "Which words are sung?"),
    ),
    "language": (
        ("What language is this sung in?", "Which language do you hear?", "Name the language of the lyrics."),
        ("Which of these languages is sung?", "What is the language of the lyrics?"),
    ),
}
TASKS = tuple(_PHRASINGS)


class Questioner:
    """Asks about the clips of one data set. It keeps no state: what a clip is asked depends on the clip alone."""

    def __init__(self, seed: int, data_set: str):
        self._seed = seed
        self._data_set = data_set

    def entries_of(self, clip: Clip) -> list[dict]:
        """Manifest entries: for training one with a turn a label, else one a label, which names its task.

        A clip without labels has no entry. Of a clip's held-out questions every other one is open.

        Raises:
            ManifestError: a task that there are no questions for, two labels of one task, or a text that cannot stand
                in a conversation.
        """
        labels = [_checked(label, clip) for label in clip.labels]
        tasks = [label.task for label in labels]
        if len(set(tasks)) < len(tasks):
            raise ManifestError(f"{self._data_set}, {clip.id}: several labels of one task; join their answers")
        rng = self._rng(clip, "order of the labels")
        if clip.split == "train":
            rng.shuffle(labels)
            turns = [self._turn(clip, label, None) for label in labels]
            return [_entry(clip, clip.id, turns) | {"task": [label.task for label in labels]}] if turns else []
        first = rng.randrange(2)
        return [
            _entry(clip, f"{clip.id}-{label.task}", [self._turn(clip, label, (place + first) % 2 == 0)])
            | {"task": label.task}
            for place, label in enumerate(labels)
        ]

    def _rng(self, clip: Clip, purpose: str) -> random.Random:
        name = json.dumps([self._seed, self._data_set, clip.id, purpose])
        return random.Random(hashlib.sha256(name.encode()).digest())

    def _turn(self, clip: Clip, label: Label, is_open: bool | None) -> tuple[str, str]:
        """A question and its answer; whether it is open is drawn where it is not said."""
        rng = self._rng(clip, f"task {label.task}")
        drawn_open = rng.random() < 0.5
        answer = rng.choice(label.answers)
        wrong = wrong_options(label.task, answer, label.answers, label.pool, rng)
        if not wrong or (drawn_open if is_open is None else is_open):
            return _open_question(label, rng), ", ".join(label.answers)
        place = rng.randrange(OPTIONS)
        options = [*wrong[:place], answer, *wrong[place:]]
        lines = [f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=True)]
        question = rng.choice(("", INSTRUCTION)) + rng.choice(_PHRASINGS[label.task][1])
        return f"{question} " + " \n".join(lines), lines[place]


def phrasings(task: str) -> tuple[str, ...]:
    """Every wording of a task's question, the open ones first, without choices and options.

    Raises:
        ManifestError: names the task that is nearest to one there are no questions for.
    """
    if task not in _PHRASINGS:
        raise ManifestError(
            f"no questions for the task {task!r}{nearest(task, list(TASKS))}; there are {', '.join(TASKS)}"
        )
    wordings = _PHRASINGS[task]
    return wordings[0] + wordings[1]


def _open_question(label: Label, rng: random.Random) -> str:
    """One of the open wordings; half of the time with the choices, where the answers come from a small pool."""
    question = rng.choice(_PHRASINGS[label.task][0])
    choices = sorted({choice.casefold(): choice for choice in (*label.pool, *label.answers)}.values())
    if label.pool and 1 < len(choices) <= LONGEST_CHOICES and rng.random() < 0.5:
        rng.shuffle(choices)
        return f"{question} (choose from: {', '.join(choices)})"
    return question


def _checked(label: Label, clip: Clip) -> Label:
    phrasings(label.task)  # names a task without questions
    if not label.answers:
        raise ManifestError(f"{clip.id}: no answer for the task {label.task!r}; leave the label out")
    for text in (*label.answers, *label.pool):
        if not text.strip() or AUDIO_PLACEHOLDER in text:
            raise ManifestError(f"{clip.id}: {text!r} cannot be an answer or an option of {label.task!r}")
    if label.task == "tempo" and not all(answer.isdecimal() for answer in label.answers):
        raise ManifestError(f"{clip.id}: a tempo must be whole beats a minute, not {', '.join(label.answers)}")
    return label


def _entry(clip: Clip, name: str, turns: list[tuple[str, str]]) -> dict:
    """The original's form; the audio stands before the first question only."""
    conversation = []
    for number, (question, answer) in enumerate(turns):
        sign = "" if number else f"{AUDIO_PLACEHOLDER}\n"
        conversation.append({"from": "human", "value": sign + question})
        conversation.append({"from": "gpt", "value": answer})
    time = {} if clip.time is None else {"time": list(clip.time)}
    return {"id": name, "audio": clip.audio} | time | {"conversations": conversation}
