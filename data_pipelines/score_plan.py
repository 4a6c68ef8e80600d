"""What is to be rendered of a score corpus, and what is asked about it: every clip and every entry, no audio yet."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from data_pipelines.score_pieces import DANCES, METERS, Piece, krumhansl_key
from data_pipelines.score_questions import (
    INSTRUMENTS,
    PITCH_CLASSES,
    SECTIONS,
    STRUCTURE_TASKS,
    TASKS,
    TEMPOS,
    Labelled,
    conversation,
    held_out_question,
    key_name,
    transcription,
)
from data_pipelines.score_render import Clip, draw_excerpt, draw_song, play_bars, play_note
from data_pipelines.score_structure import draw_sections, label_sections, play_sections

_NOTE_RANGE = (60, 83)  # C4 to B5: within every instrument's compass, and two notes a pitch class
# A dance, or a meter of tunes that no dance is declared for. 3/4 stands twice, having no dance of its own.
_FORMS = (*DANCES, *METERS, "3/4")
_TURNS_ON_EXCERPT = 3
# A held-out excerpt is asked about half of what it can answer, by turns: enough to measure, sooner asked.
_HELD_OUT_TASKS = (("instrument", "tempo", "dance"), ("key", "meter", "dance"))
_LONGEST_TRANSCRIPTION = 24  # notes


@dataclass(frozen=True)
class ScoreCorpusConfig:
    """How many tunes to read and how many clips of each kind to render; `seed` draws all that is random.

    Structures are songs of several sections, two to six and a half minutes long; there are none unless asked for.
    """

    pieces: int = 2000
    held_out_share: float = 1 / 6
    train_notes: int = 3500
    train_excerpts: int = 700
    train_songs: int = 90
    held_out_notes: int = 264
    held_out_excerpts: int = 240
    held_out_songs: int = 12
    train_structures: int = 0
    held_out_structures: int = 0
    seed: int = 0

    @property
    def clips(self) -> int:
        """Clips of all kinds, of both splits."""
        train = self.train_notes + self.train_excerpts + self.train_songs + self.train_structures
        held_out = self.held_out_notes + self.held_out_excerpts + self.held_out_songs + self.held_out_structures
        return train + held_out


@dataclass
class ScorePlan:
    """What is to be rendered, and the entries about it by file."""

    clips: list[Clip] = field(default_factory=list)
    entries: dict[str, list[dict]] = field(default_factory=dict)

    def add(self, name: str, entry: dict) -> None:
        self.entries.setdefault(name, []).append(entry)


def make_plan(config: ScoreCorpusConfig, train: list[Piece], held_out: list[Piece]) -> ScorePlan:
    """Every clip and every entry; no audio yet."""
    plan = ScorePlan()
    for split, pieces in (("train", train), ("heldout", held_out)):
        notes = config.train_notes if split == "train" else config.held_out_notes
        excerpts = config.train_excerpts if split == "train" else config.held_out_excerpts
        songs = config.train_songs if split == "train" else config.held_out_songs
        _plan_notes(plan, split, pieces, notes, config.seed)
        for kind, count in (("excerpts", excerpts), ("songs", songs)):
            _plan_passages(plan, split, kind, pieces, count, config.seed)
        structures = config.train_structures if split == "train" else config.held_out_structures
        _plan_structures(plan, split, pieces, structures, config.seed)
    return plan


def _evenly(rng: random.Random, count: int, *values: Sequence) -> list[tuple]:
    """`count` combinations of the values, each as often as every other, in random order."""
    drawn: list[tuple] = []
    while len(drawn) < count:
        every = list(product(*values))
        rng.shuffle(every)
        drawn += every
    return drawn[:count]


def _plan_notes(plan: ScorePlan, split: str, pieces: list[Piece], count: int, seed: int) -> None:
    """Single notes out of pieces, transposed so that all pitch classes and instruments are as frequent."""
    rng = random.Random(f"{seed}/{split}/notes")
    for index, (pitch_class, instrument) in enumerate(_evenly(rng, count, range(12), list(INSTRUMENTS))):
        written = rng.choice(rng.choice(pieces).notes).pitch
        pitch = written + (pitch_class - written + 6) % 12 - 6
        low, high = _NOTE_RANGE
        pitch += 12 * ((pitch < low) - (pitch > high))
        assert low <= pitch <= high, (written, pitch)
        name = f"{split}-note-{index:05d}"
        path = f"audio/notes/{name}.flac"
        plan.clips.append(play_note(path, INSTRUMENTS[instrument], pitch, rng))
        clip = Labelled(name, path, {"pitch": PITCH_CLASSES[pitch_class], "instrument": instrument})
        if split == "train":
            tasks = ["pitch", "instrument"]
            rng.shuffle(tasks)
            plan.add("train_notes", conversation(clip, tasks, rng))
            plan.add("train_transcription", transcription(clip, [pitch]))
        else:
            plan.add("heldout", held_out_question(clip, "pitch", rng))
            if index % 2 == 0:
                plan.add("heldout", held_out_question(clip, "instrument", rng))


def _plan_passages(plan: ScorePlan, split: str, kind: str, pieces: list[Piece], count: int, seed: int) -> None:
    """Excerpts or songs: tonics, instruments, tempos evenly; meters, modes, dances as evenly as can be."""
    rng = random.Random(f"{seed}/{split}/{kind}")
    sounds = _evenly(rng, count, list(INSTRUMENTS), TEMPOS)
    tonics = _evenly(rng, count, range(12))
    drawn = _draw_forms(rng, pieces, count)
    for index, ((instrument, tempo), (tonic,), piece) in enumerate(zip(sounds, tonics, drawn, strict=True)):
        transposition = (tonic - piece.tonic + 6) % 12 - 6
        draw = draw_song if kind == "songs" else draw_excerpt
        passage = draw(piece, transposition, tempo, rng)
        name = f"{split}-{kind[:-1]}-{index:04d}"
        path = f"audio/{kind}/{name}.flac"
        plan.clips.append(play_bars(path, INSTRUMENTS[instrument], passage, rng))
        answers = {"instrument": instrument, "tempo": str(tempo), "meter": piece.meter}
        if krumhansl_key(passage.notes()) == (tonic, piece.mode):
            # A few bars out of a tune may dwell on another degree; then the key is not theirs to tell.
            answers["key"] = key_name(tonic, piece.mode)
        if piece.dance is not None:
            answers["dance"] = piece.dance
        clip = Labelled(name, path, answers)
        if split == "heldout":
            _ask_held_out(plan, kind, clip, index, rng)
            continue
        turns = _TURNS_ON_EXCERPT if kind == "excerpts" else len(answers)
        plan.add(f"train_{kind}", conversation(clip, rng.sample(sorted(answers), turns), rng))
        pitches = [note.pitch for note in passage.notes()]
        if kind == "excerpts" and not passage.bass and len(pitches) <= _LONGEST_TRANSCRIPTION:
            plan.add("train_transcription", transcription(clip, pitches))


def _plan_structures(plan: ScorePlan, split: str, pieces: list[Piece], count: int, seed: int) -> None:
    """Songs of sections: their numbers, and whether the first tune returns, evenly."""
    rng = random.Random(f"{seed}/{split}/structures")
    for index, (sections, returns) in enumerate(_evenly(rng, count, SECTIONS, (True, False))):
        drawn = draw_sections(pieces, sections, returns, rng)
        name = f"{split}-structure-{index:04d}"
        path = f"audio/structures/{name}.flac"
        plan.clips.append(play_sections(path, drawn, rng))
        clip = label_sections(name, path, drawn, returns, rng)
        if split == "heldout":
            for task in STRUCTURE_TASKS:
                plan.add("heldout_structures", held_out_question(clip, task, rng))
        else:
            plan.add("train_structures", conversation(clip, rng.sample(STRUCTURE_TASKS, len(STRUCTURE_TASKS)), rng))


def _ask_held_out(plan: ScorePlan, kind: str, clip: Labelled, index: int, rng: random.Random) -> None:
    """The one-turn entries about a held-out excerpt or song."""
    name, tasks = "heldout_songs", TASKS
    if kind == "excerpts":
        name, tasks = "heldout", _HELD_OUT_TASKS[index % 2]
    for task in tasks:
        if task in clip.answers:
            plan.add(name, held_out_question(clip, task, rng))


def _draw_forms(rng: random.Random, pieces: list[Piece], count: int) -> list[Piece]:
    """`count` pieces, first a form and a mode evenly, then a piece of them, or of the form, or any.

    Drawn as they come, nine of ten would be in major and one of thirty in 9/8.
    """
    drawn = []
    for form, mode in _evenly(rng, count, _FORMS, ("major", "minor")):
        matching = [piece for piece in pieces if (piece.dance or piece.meter) == form]
        matching = [piece for piece in matching if piece.mode == mode] or matching or pieces
        drawn.append(rng.choice(matching))
    return drawn
